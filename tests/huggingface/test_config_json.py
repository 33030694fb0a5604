"""config.json: every wrong field has a line, what it does not say is what transformers takes."""

import math
from pathlib import Path

import pytest
from directories import hf

from bertjax.errors import CheckpointError
from bertjax.huggingface import config_json, names

PATH = Path("there/config.json")
BAD = {
    "vocab_size": ["bert", True, "30", 0, -1, 2.0, None, 2**31],
    "hidden_size": ["bert", 770],  # 12 heads
    "num_hidden_layers": ["bert", 0, 1001],
    "num_hidden_groups": ["albert", 0, 5],
    "embedding_size": ["albert", 4097],
    "inner_group_num": ["albert", 2, True],
    "hidden_act": ["bert", "mish", ["gelu"], None],
    "hidden_dropout_prob": ["bert", 1.0, -0.1, "0.1", False, float("nan")],
    "layer_norm_eps": ["bert", -1e-12, "1e-12", float("inf")],
    "position_embedding_type": ["bert", "relative_key", None],
    "is_decoder": ["bert", True, 1],
    "pad_token_id": ["roberta", -1, None, "1", 600],
    "n_layers": ["distilbert", "6"],
    "activation": ["distilbert", "mish"],
}
BAD |= {
    "hidden_activation": ["modernbert", "mish"],
    "classifier_activation": ["modernbert", "relu"],
    "attention_bias": ["modernbert", True],
    "norm_bias": ["modernbert", True, 0],
    "decoder_bias": ["modernbert", False],
    "tie_word_embeddings": ["nomic_bert", False],
    "local_attention": ["modernbert", 0, 1, "128", None],
    "global_attn_every_n_layers": ["modernbert", 0, "3"],
    "layer_types": ["modernbert", ["sliding_attention"] * 22, ["full_attention"] * 21, "full_attention"],
    "rope_parameters": [
        "modernbert",
        {"full_attention": {"rope_type": "yarn"}},
        {"sliding_attention": {"rope_theta": "1e4"}},
        {"full_attention": {"rope_theta": 0.5}},
    ],
    "head_dim": ["nomic_bert", 32],
}
CASES = [(field, family, value) for field, (family, *values) in BAD.items() for value in values]


@pytest.mark.parametrize(("field", "family", "value"), CASES, ids=lambda x: str(x))
def test_a_wrong_field_is_one_line(field, family, value):
    with pytest.raises(CheckpointError) as error:
        config_json.from_json(PATH, family, {"model_type": family, field: value})
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{PATH}: ") and len(line) < 200
    assert field in line or field == "pad_token_id" and "position" in line


def test_all_wrong_fields_are_reported_at_once():
    values = {"vocab_size": "x", "hidden_act": "mish", "is_decoder": True, "layer_norm_eps": None}
    with pytest.raises(CheckpointError) as error:
        config_json.from_json(PATH, "bert", values)
    assert len(str(error.value).splitlines()) == 4


def test_what_robertas_head_does_not_do_is_refused():
    with pytest.raises(CheckpointError, match="hidden_act = 'gelu_new'"):
        config_json.from_json(PATH, "roberta", {"hidden_act": "gelu_new"})


@pytest.mark.parametrize("family", names.FAMILIES)
def test_defaults_are_those_of_transformers(family):
    """A field that config.json lacks means what transformers' own class takes for it."""
    config = hf().AutoConfig.for_model(family)
    assert config_json.from_json(PATH, family, {}) == config_json.from_json(PATH, family, config.to_dict())


def test_distilbert_also_takes_the_common_names():
    common = {"num_hidden_layers": 3, "hidden_size": 48, "num_attention_heads": 6}
    own = {"n_layers": 3, "dim": 48, "n_heads": 6}
    expected, _ = config_json.from_json(PATH, "distilbert", own)
    assert config_json.from_json(PATH, "distilbert", common)[0] == expected and expected.hidden_size == 48


def test_positions_of_roberta_stand_behind_its_padding():
    model, first = config_json.from_json(PATH, "roberta", {"max_position_embeddings": 514, "type_vocab_size": 1})
    assert (model.max_positions, first, model.token_types) == (512, 2, 1)


def test_the_two_spellings_of_modernberts_layers():
    """Before transformers 5, numbers; from 5 on, a list of kinds with the rotation of each."""
    old = {"num_hidden_layers": 5, "global_attn_every_n_layers": 2, "local_rope_theta": 77.0, "local_attention": 10}
    full, local = "full_attention", "sliding_attention"
    new = {
        "num_hidden_layers": 5,
        "local_attention": 10,
        "layer_types": [full, local, full, local, full],
        "rope_parameters": {local: {"rope_type": "default", "rope_theta": 77}},
    }
    model, other = (config_json.from_json(PATH, "modernbert", values)[0] for values in (old, new))
    assert model == other
    assert (model.window, model.global_every, model.rotary_base_local, model.rotary_base) == (5, 2, 77.0, 160_000.0)
    everywhere = config_json.from_json(PATH, "modernbert", old | {"layer_types": [full] * 5})[0]
    assert (everywhere.window, everywhere.rotary_base_local) == (0, 0.0)


def test_the_published_sizes_are_the_defaults():
    modern, _ = config_json.from_json(PATH, "modernbert", {})
    assert (modern.num_layers, modern.hidden_size, modern.ffn_size, modern.vocab_size) == (22, 768, 1152, 50_368)
    assert (modern.window, modern.global_every, modern.rotary_base, modern.rotary_base_local) == (
        64,
        3,
        160_000,
        10_000,
    )
    nomic, _ = config_json.from_json(PATH, "nomic_bert", {})
    assert (nomic.rotary_base, nomic.activation, nomic.biases, nomic.norm_place) == (1000.0, "silu", "heads", "post")


@pytest.mark.parametrize(
    ("family", "values", "named"),
    [
        ("bert", {"layer_norm_eps": 10**400}, "layer_norm_eps"),
        ("bert", {"layer_norm_eps": 1e300}, "layer_norm_eps"),
        ("bert", {"initializer_range": math.inf}, "initializer_range"),
        ("nomic_bert", {"rope_parameters": {"rope_theta": 10**400}}, "rope_theta"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_theta": 10**400}}}, "rope_theta"),
        ("modernbert", {"rope_parameters": {"sliding_attention": "x"}}, "rope_theta = 'x'"),
        ("modernbert", {"rope_parameters": {"full_attention": [1]}}, r"rope_theta = \[1\]"),
    ],
)
def test_numbers_that_float32_does_not_hold_and_what_is_no_number_are_refused(family, values, named):
    with pytest.raises(CheckpointError, match=named) as error:
        config_json.from_json(PATH, family, values)
    assert len(str(error.value).splitlines()) == 1
