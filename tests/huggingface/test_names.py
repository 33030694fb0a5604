"""config.json: every wrong field has a line, what it does not say is what transformers takes, the structure decides."""

import dataclasses
from pathlib import Path

import pytest
from directories import KINDS, UNSHARED, hf, model_of

from bertjax.errors import CheckpointError, ConfigError
from bertjax.huggingface import names

PATH = Path("there/config.json")
BAD = {
    "vocab_size": ["bert", True, "30", 0, -1, 2.0, None, 2**31],
    "hidden_size": ["bert", 770],  # 12 heads
    "num_hidden_layers": ["bert", 0, 1001],
    "num_hidden_groups": ["albert", 0, 5],
    "embedding_size": ["albert", 4097],
    "inner_group_num": ["albert", 2, True],
    "hidden_act": ["bert", "silu", ["gelu"], None],
    "hidden_dropout_prob": ["bert", 1.0, -0.1, "0.1", False, float("nan")],
    "layer_norm_eps": ["bert", -1e-12, "1e-12", float("inf")],
    "position_embedding_type": ["bert", "relative_key", None],
    "is_decoder": ["bert", True, 1],
    "pad_token_id": ["roberta", -1, None, "1", 600],
    "n_layers": ["distilbert", "6"],
    "activation": ["distilbert", "swish"],
}
CASES = [(field, family, value) for field, (family, *values) in BAD.items() for value in values]


@pytest.mark.parametrize(("field", "family", "value"), CASES, ids=lambda x: str(x))
def test_a_wrong_field_is_one_line(field, family, value):
    with pytest.raises(CheckpointError) as error:
        names.from_json(PATH, family, {"model_type": family, field: value})
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{PATH}: ") and len(line) < 200
    assert field in line or field == "pad_token_id" and "position" in line


def test_all_wrong_fields_are_reported_at_once():
    values = {"vocab_size": "x", "hidden_act": "silu", "is_decoder": True, "layer_norm_eps": None}
    with pytest.raises(CheckpointError) as error:
        names.from_json(PATH, "bert", values)
    assert len(str(error.value).splitlines()) == 4


def test_what_robertas_head_does_not_do_is_refused():
    with pytest.raises(CheckpointError, match="hidden_act = 'gelu_new'"):
        names.from_json(PATH, "roberta", {"hidden_act": "gelu_new"})


@pytest.mark.parametrize("family", names.FAMILIES)
def test_defaults_are_those_of_transformers(family):
    """A field that config.json lacks means what transformers' own class takes for it."""
    config = hf().AutoConfig.for_model(family)
    assert names.from_json(PATH, family, {}) == names.from_json(PATH, family, config.to_dict())


def test_distilbert_also_takes_the_common_names():
    common = {"num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 6}
    own = {"n_layers": 3, "dim": 48, "n_heads": 6}
    expected, _ = names.from_json(PATH, "distilbert", own)
    assert names.from_json(PATH, "distilbert", common)[0] == expected and expected.hidden_size == 48


def test_positions_of_roberta_stand_behind_its_padding():
    model, first = names.from_json(PATH, "roberta", {"max_position_embeddings": 514, "type_vocab_size": 1})
    assert (model.max_positions, first, model.token_types) == (512, 2, 1)


@pytest.mark.parametrize("kind", KINDS | UNSHARED)
def test_the_structure_decides(kind):
    assert names.choose(model_of(kind)) == (KINDS | UNSHARED)[kind][1]


@pytest.mark.parametrize(
    "changes", [{"heads": ("mlm_head", "pooler")}, {"embedding_size": 16}, {"layer_norm_eps": 1e-5}]
)
def test_what_no_family_holds_is_named(changes):
    (field,) = changes
    with pytest.raises(ConfigError, match=rf"^model\.{field} = .*cannot be exported$"):
        names.choose(dataclasses.replace(model_of("distilbert"), **changes))


def test_rotary_positions_have_no_family():
    with pytest.raises(ConfigError, match="model.positions = rotary: .*cannot be exported"):
        names.choose(dataclasses.replace(model_of("bert"), positions="rotary"))
