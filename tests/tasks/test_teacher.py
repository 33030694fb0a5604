"""`bertjax.tasks.teacher`: what does not go with the student is refused, in one report and before anything compiles."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from small import one_device_mesh, tiny

from bertjax.config.schema import ComputeConfig
from bertjax.data import tokenizer
from bertjax.errors import ConfigError
from bertjax.model.heads import HEADS
from bertjax.model.network import abstract_params
from bertjax.tasks import teacher
from bertjax.trained.load import Trained

NO_PAIR = {"data": {"examples": "doc_sentences"}, "objective": {"pair": 0.0}}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Tokenizers of two vocabularies of 400 pieces in different order."""
    folder = tmp_path_factory.mktemp("vocabulary")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for name, step in (("one.txt", 1), ("other.txt", -1)):
        pieces = [*special, *[f"w{i}" for i in range(395)][::step]]
        (folder / name).write_text("\n".join(pieces) + "\n")
    return [tokenizer.load(folder / name, lower_case=True) for name in ("one.txt", "other.txt")]


def student(teacher=None, **sections):
    sections["objective"] = {"soft": 1.0, "cosine": 1.0} | sections.get("objective", {})
    return tiny(teacher={"path": "somewhere"} | (teacher or {}), **sections)


def found(tokenizer, *, heads=tuple(HEADS), params=None, **shape):
    return Trained(replace(tiny().model, **shape), ComputeConfig(), params, frozenset(heads), tokenizer)


def test_a_teacher_may_have_another_depth_and_more_positions(tokenizers):
    teacher.check(found(tokenizers[0], num_layers=9, max_positions=64, share="all"), student(), tokenizers[0])
    teacher.check(found(tokenizers[0], hidden_size=64), student(teacher={"projection": 64}), tokenizers[0])
    teacher.check(found(tokenizers[0], token_types=1), student(**NO_PAIR), tokenizers[0])
    only_states = student(objective={"soft": 0.0})
    teacher.check(found(tokenizers[0], heads=["pooler"]), only_states, tokenizers[0])


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ({"vocab_size": 500}, {}, "model.vocab_size = 400: teacher.path = 'somewhere' has 500"),
        ({"max_positions": 16}, {}, "data.seq_len = 32: .* has 16 positions"),
        ({"hidden_size": 64}, {}, "teacher.projection = 0: the model's hidden states are 32 wide, .* 64; set it to 64"),
        ({}, {"teacher": {"projection": 64}}, "teacher.projection = 64: .*; set it to 0"),
        ({}, {"teacher": {"layers": (0, 1)}}, "teacher.layers = \\(0, 1\\)"),
        ({}, {"teacher": {"layers": (0, 1, 2, 4)}}, "must be a layer of the teacher, 0 to 3"),
        ({"token_types": 1}, {}, "has one token type"),
        ({"heads": ["pooler"]}, {}, "has no MLM head"),
    ],
)
def test_what_does_not_go_together_is_refused(tokenizers, shape, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        teacher.check(found(tokenizers[0], **shape), student(**changes), tokenizers[0])
    assert len(str(error.value).splitlines()) == 1


def test_another_vocabulary_is_refused_and_all_errors_are_in_one_report(tokenizers):
    for theirs in (tokenizers[1], None):
        with pytest.raises(ConfigError, match="data.tokenizer: is not that of teacher.path"):
            teacher.check(found(theirs), student(), tokenizers[0])
    with pytest.raises(ConfigError) as error:
        teacher.check(
            found(tokenizers[1], hidden_size=64, vocab_size=500), student(teacher={"layers": (1,)}), tokenizers[0]
        )
    assert len(str(error.value).splitlines()) == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_placed_in_its_dtype_and_computed_as_this_device_can(tokenizers, monkeypatch, dtype):
    config = student(teacher={"dtype": dtype})
    leaves, tree = jax.tree.flatten(abstract_params(config.model))
    params = jax.tree.unflatten(tree, [np.full(leaf.shape, 0.1, np.float32) for leaf in leaves])
    monkeypatch.setattr(teacher, "load_trained", lambda path: found(tokenizers[0], params=params))
    one = teacher.load(config, tokenizers[0], one_device_mesh(config))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(one.params)} == {dtype}
    assert one.compute == ComputeConfig(dtype=dtype)
    params["pooler"]["bias"][0] += 1
    assert teacher.load(config, tokenizers[0], one_device_mesh(config)).digest != one.digest


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"objective": {"cosine": 1.0}}, "objective.cosine = 1.0: needs a teacher"),
        ({"teacher": {"path": "x"}}, "teacher.path = 'x': nothing is learnt from it"),
        ({"teacher": {"path": "x", "layers": (-1,)}, "objective": {"cosine": 1.0}}, "teacher.layers = .*at least 0"),
        ({"teacher": {"path": "x", "layers": (0,)}, "objective": {"soft": 1.0}}, "need objective.cosine"),
        ({"teacher": {"path": "x", "temperature": 0.0}, "objective": {"soft": 1.0}}, "teacher.temperature = 0.0"),
    ],
)
def test_settings_that_do_nothing_are_refused(sections, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**sections)


def test_layers_in_pairs():
    assert teacher.layer_pairs((), 6, 12) == [(5, 11)]
    assert teacher.layer_pairs((0, 0, 3), 3, 4) == [(0, 0), (1, 0), (2, 3)]
    for wrong in ((0, 1), (0, 1, 4)):
        with pytest.raises(ConfigError, match="for each of the 3 layers"):
            teacher.layer_pairs(wrong, 3, 4)
