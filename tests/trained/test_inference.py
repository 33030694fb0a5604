"""`bertjax.load`: the outputs are the model's, nothing in a batch changes its neighbours, and mistakes are named."""

import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import directories
import jax
import numpy as np
import pytest
from finetuned import config_of, params_of

import bertjax
from bertjax.config.schema import ComputeConfig
from bertjax.errors import CheckpointError, DataError
from bertjax.model import network
from bertjax.trained import inference
from bertjax.trained.exchange import import_directory
from bertjax.trained.inference import Loaded

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n")
    return path


@pytest.fixture(scope="module")
def bert(vocabulary, tmp_path_factory):
    return directories.write(tmp_path_factory.mktemp("hf") / "bert", "bert", tokenizer=vocabulary)


@pytest.fixture(scope="module")
def loaded(bert):
    return bertjax.load(bert)


def batch(config, *, seed=0, rows=3, length=13):
    """Tokens, token types and a mask with padding in every row but the first."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, config.vocab_size, (rows, length))
    mask = (np.arange(length) < length - 2 * np.arange(rows)[:, None]).astype(int)
    types = (np.arange(length) > 5).astype(int)[None].repeat(rows, axis=0) * (config.token_types > 1)
    return tokens, types, mask


@pytest.mark.parametrize("kind", ["bert", "albert", "distilbert"])
def test_outputs_are_those_of_the_model(kind, tmp_path):
    config, params = directories.ours(kind)
    found = bertjax.load(directories.write(tmp_path / "hf", kind))
    tokens, types, mask = batch(config)
    out = found(tokens, types, mask)
    positions = np.arange(13)[None].repeat(3, axis=0)
    inputs = {"tokens": tokens, "segments": mask, "positions": positions, "token_types": types}
    inputs |= {"mlm_positions": positions, "pair_positions": np.zeros((3, 1), int)}
    expected = jax.jit(network.apply, static_argnums=(0, 1))(config, ComputeConfig(), params, inputs)
    real = mask.astype(bool)
    np.testing.assert_allclose(out.hidden[real], expected["hidden"][real], atol=1e-5)
    np.testing.assert_allclose(out.mlm_logits[real], expected["mlm_logits"][real], atol=1e-5)
    assert out.mlm_logits.shape == (3, 13, config.vocab_size)
    for name, head in (("pooled", "pooler"), ("pair_logits", "pair_head")):
        assert (getattr(out, name) is not None) == (head in config.heads)
        if head in config.heads:
            np.testing.assert_allclose(getattr(out, name), expected[name][:, 0], atol=1e-5)
    assert {x.dtype for x in out if x is not None} == {np.dtype(np.float32)}


@pytest.mark.parametrize("kind", ["classify", "tag", "span"])
def test_heads_for_labels_are_outputs(kind):
    config = config_of(kind, model={"pooling": "mean"}).model
    found = Loaded(config, ComputeConfig(), params_of(config), None, frozenset(config.heads))
    tokens, types, mask = batch(config)
    inputs = {"tokens": tokens, "segments": mask, "positions": np.tile(np.arange(13), (3, 1)), "token_types": types}
    inputs |= {"pair_positions": np.zeros((3, 1), int)}
    expected = jax.jit(network.apply, static_argnums=(0, 1))(config, ComputeConfig(), params_of(config), inputs)
    out, real = found(tokens, types, mask), mask.astype(bool)
    given = {name for name in out._fields if getattr(out, name) is not None}
    if kind == "classify":
        assert given == {"hidden", "pooled", "class_logits"}
        np.testing.assert_allclose(out.class_logits, expected["class_logits"][:, 0], atol=1e-5)
    else:
        assert given == {"hidden", f"{kind}_logits"} and out[-1 if kind == "span" else -2].shape[:2] == (3, 13)
        np.testing.assert_allclose(getattr(out, f"{kind}_logits")[real], expected[f"{kind}_logits"][real], atol=1e-5)


def test_only_what_is_asked_for_is_computed(loaded):
    tokens, types, mask = batch(loaded.config)
    everything = loaded(tokens, types, mask)
    asked = ["pair_logits", "hidden"]
    some = loaded(tokens, types, mask, outputs=asked)
    assert {n for n in some._fields if getattr(some, n) is not None} == set(asked)
    for name in asked:
        np.testing.assert_allclose(getattr(some, name), getattr(everything, name), atol=1e-6)
    # The decoder's product is the largest of this model: it is not in the program that does without it.
    for wanted, positions in ((("hidden", "pair_logits"), 16), (("mlm_logits",), 16), (("mlm_logits",), 2)):
        columns = [np.zeros((4, 16), np.int32)] * 3 + [np.zeros((4, positions), np.int32)]
        program = inference.compiled().lower(loaded.config, loaded.compute, wanted, loaded.params, *columns)
        decoded = set(re.findall(rf"4x(\d+)x{loaded.config.vocab_size}xf32", program.as_text()))
        assert decoded == ({str(positions)} if "mlm_logits" in wanted else set())


def test_logits_are_given_at_the_positions_that_are_named(loaded):
    tokens, types, mask = (np.tile(x, (12, 1)) for x in batch(loaded.config))  # a full batch and four more
    everywhere = loaded(tokens, types, mask).mlm_logits
    at = np.random.default_rng(0).integers(0, 7, (36, 3))  # in no row padding
    found = loaded(tokens, types, mask, mlm_positions=at)
    assert found.mlm_logits.shape == (36, 3, loaded.config.vocab_size) and found.hidden.shape[:2] == tokens.shape
    np.testing.assert_allclose(found.mlm_logits, np.take_along_axis(everywhere, at[:, :, None], axis=1), atol=1e-5)


def test_padding_and_neighbours_change_nothing(loaded):
    tokens, types, mask = batch(loaded.config)
    before = loaded(tokens, types, mask)
    other = np.where(mask, tokens, 7)  # what stands in the padding
    other[1] = 9  # a neighbour
    after = loaded(other, types, mask)
    real = mask.astype(bool)
    for row in (0, 2):
        np.testing.assert_array_equal(after.hidden[row][real[row]], before.hidden[row][real[row]])
        np.testing.assert_array_equal(after.pooled[row], before.pooled[row])
    assert not np.array_equal(after.pooled[1], before.pooled[1])
    alone = loaded(tokens[2:, :9], types[2:, :9])  # in another shape
    np.testing.assert_allclose(alone.hidden[0], before.hidden[2, :9], atol=1e-5)


def test_batches_of_any_size(loaded):
    tokens, types, mask = (np.tile(x, (11, 1)) for x in batch(loaded.config))  # 33 rows: a full batch and one more
    for x in (x for x in loaded(tokens, types, mask) if x is not None):
        np.testing.assert_allclose(x, np.tile(x[:3], (11,) + (1,) * (x.ndim - 1)), atol=1e-5)
    none = loaded(np.zeros((0, 4), int))
    assert none.hidden.shape == (0, 4, loaded.config.hidden_size) and none.pair_logits.shape == (0, 2)


def test_few_shapes_are_compiled():
    lengths = [inference.padded_length(length, 512) for length in range(1, 513)]
    assert all(length <= padded for length, padded in enumerate(lengths, 1))
    assert len(set(lengths)) * 6 == 84  # as the docstring says: 1 to 32 rows
    assert {inference.padded_length(length, 40) for length in range(1, 41)} == {16, 32, 40}
    assert "84 shapes" in inference.Loaded.__doc__


def test_a_text_is_embedded_as_the_mean_of_its_tokens(loaded):
    texts = ["a b c", "abc d", "", "x " * 200, "c"] * 9
    found = loaded.encode_text(texts)
    assert found.shape == (45, loaded.config.hidden_size) and found.dtype == np.float32
    special, most = loaded.tokenizer.special, loaded.config.max_positions - 2
    for text, embedding in list(zip(texts, found, strict=True))[:5]:
        ids, _ = loaded.tokenizer.encode_batch([text])
        hidden = loaded([[special.cls, *ids[:most], special.sep]], outputs=["hidden"]).hidden
        np.testing.assert_allclose(embedding, hidden[0].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found, np.tile(found[:5], (9, 1)), atol=1e-5)  # their order is kept
    np.testing.assert_array_equal(loaded.encode_text(text for text in texts), found)
    assert loaded.encode_text([]).shape == loaded.encode_text(iter([])).shape == (0, loaded.config.hidden_size)


def test_threads_get_their_own_answers(loaded):
    texts = [[LETTERS[i] * (i + 1)] * (i % 2 + 1) for i in range(6)]
    expected, found = [loaded.encode_text(t) for t in texts], {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: loaded.encode_text(texts[i])})) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(6):
        np.testing.assert_array_equal(found[i], expected[i])


def test_a_work_directory_answers_like_the_hugging_face_directory(loaded, bert, tmp_path):
    import_directory(bert, tmp_path / "run")
    imported = bertjax.load(str(tmp_path / "run"))
    assert imported.heads == loaded.heads and imported.config == loaded.config
    directories.assert_same(
        *(
            directories.unflatten_dict({k: np.array(v) for k, v in directories.flatten_dict(x.params).items()})
            for x in (imported, loaded)
        )
    )
    for ours, theirs in zip(imported(*batch(loaded.config)), loaded(*batch(loaded.config)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(imported.encode_text(["ab c"]), loaded.encode_text(["ab c"]))


def test_nothing_is_dropped(loaded):
    tokens, types, mask = batch(loaded.config)
    trained = replace(loaded, config=replace(loaded.config, attention_dropout=0.5, dropout=0.5))
    np.testing.assert_array_equal(trained(tokens, types, mask).hidden, loaded(tokens, types, mask).hidden)


def test_half_precision_is_computed_and_given_as_float32(loaded):
    half = replace(loaded, compute=ComputeConfig(dtype="bfloat16"))
    tokens, types, mask = batch(loaded.config)
    exact, rough = loaded(tokens, types, mask), half(tokens, types, mask)
    assert rough.hidden.dtype == np.float32
    assert 0 < np.abs(rough.hidden - exact.hidden).max() < 0.2


def test_what_cannot_be_loaded_or_computed_is_named(loaded, bert, vocabulary, tmp_path):
    with pytest.raises(CheckpointError, match="neither a work directory"):
        bertjax.load(tmp_path)
    most, size = loaded.config.max_positions, loaded.config.vocab_size
    for arguments, named in (
        (([1, 2],), "tokens: .*shape \\[2\\]"),
        (([[1, 2], [3]],), "tokens: rows of different lengths"),
        ((np.zeros((2, 0), int),), "tokens: 0 positions"),
        (([[1] * (most + 1)],), f"tokens: {most + 1} positions"),
        (([[1, size]],), f"0 to {size - 1}"),
        (([[-1]],), "from -1"),
        (([[0.5]],), "integers"),
        (([[1, 2]], [[0]]), "token_types"),
        (([[1, 2]], [[0, 2]]), "token_types: .*0 to 1"),
        (([[1, 2]], None, [[1, 2]]), "mask: .*0 to 1"),
        (([[1, 2]], None, None, [[2]]), "mlm_positions: .*0 to 1"),
        (([[1, 2]], None, None, [[0], [1]]), "mlm_positions: 2 rows"),
        (([[1, 2]], None, None, [0]), "mlm_positions: .*shape \\[1\\]"),
    ):
        with pytest.raises(DataError, match=named) as error:
            loaded(*arguments[:3], mlm_positions=arguments[3] if arguments[3:] else None)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="outputs: logits: unknown"):
        loaded([[1]], outputs=["logits"])
    for texts in ("a text", [b"bytes"], b"bytes", 3, None):
        with pytest.raises(DataError, match="list of str"):
            loaded.encode_text(texts)
    with pytest.raises(DataError, match="half a character") as error:
        loaded.encode_text(["a", "b\n\ud800"])
    assert len(str(error.value).splitlines()) == 1 and str(error.value).isascii()
    with pytest.raises(DataError, match="without a tokenizer"):
        replace(loaded, tokenizer=None).encode_text(["a"])
    (bert / "vocab.txt").write_text(vocabulary.read_text() + "".join(f"more{i}\n" for i in range(400)))
    with pytest.raises(DataError, match="its tokenizer has 457 pieces and its model 400"):
        bertjax.load(bert)
    (bert / "vocab.txt").write_text(vocabulary.read_text())


def test_a_jaxlib_without_the_option_computes_the_same(tmp_path, monkeypatch):
    directory = directories.write(tmp_path / "hf")
    expected = bertjax.load(directory)([[7, 8, 9]]).hidden
    caches = (inference.compiled, inference.compiler_options)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(inference, "CPU_OPTIONS", {"xla_no_such_option": ""})
    np.testing.assert_allclose(bertjax.load(directory)([[7, 8, 9]]).hidden, expected, atol=1e-5)
    assert inference.compiler_options() == {}
    for cached in caches:
        cached.cache_clear()


WITHOUT_TRAINING = """
import sys
import bertjax
from bertjax.trained.fill_mask import fill_mask
for path in sys.argv[1:]:
    loaded = bertjax.load(path)
    loaded([[7, 8, 9]])
    loaded.encode_text(["a b"])
    fill_mask(path, ["a [MASK]"], top=1)
print(sorted({"grain", "array_record", "tensorflow_datasets", "tensorflow", "matplotlib"} & set(sys.modules)))
"""


def test_a_model_is_loaded_and_called_without_what_only_training_needs(bert, tmp_path):
    import_directory(bert, tmp_path / "run")
    environment = os.environ | {"PYTHONPATH": str(Path(bertjax.__file__).parents[1])}
    command = [sys.executable, "-c", WITHOUT_TRAINING, str(bert), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
