"""What a directory may hold, what is refused by name, and what is not written."""

import dataclasses
import json
import re

import numpy as np
import pytest
import safetensors.numpy
from directories import assert_same, model_of, ours, reconfigure, restore, stored, write

from bertjax.errors import CheckpointError, ConfigError, DataError, StorageError
from bertjax.huggingface import weights
from bertjax.huggingface.directory import read

WORD = "bert.embeddings.word_embeddings.weight"
QUERY = "bert.encoder.layer.1.attention.self.query.weight"


def refused(directory, *texts, error=CheckpointError):
    """Reading says so in one line with all of `texts`, and writes nothing."""
    before = sorted(directory.parent.rglob("*"))
    with pytest.raises(error) as caught:
        read(directory)
    (line,) = str(caught.value).splitlines()
    assert caught.value.exit_code == 4 and str(directory) in line and len(line) < 2000
    for text in texts:
        assert text in line, line
    assert sorted(directory.parent.rglob("*")) == before


# Other spellings of the same model ----------------------------------------------------------------------------------


def without_prefix(tensors):
    return {re.sub(r"^(bert|albert|roberta|distilbert)\.", "", name): x for name, x in tensors.items()}


def with_old_norms(tensors):
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {re.sub(r"LayerNorm\.\w+$", lambda m: old[m[0]], name): x for name, x in tensors.items()}


def with_ties(tensors):
    bias = tensors["cls.predictions.bias"]
    return tensors | {"cls.predictions.decoder.weight": tensors[WORD], "cls.predictions.decoder.bias": bias}


def with_buffers(tensors):
    return tensors | {"bert.embeddings.position_ids": np.arange(32)[None]}


@pytest.mark.parametrize("change", [without_prefix, with_old_norms, with_ties, with_buffers])
def test_other_spellings_are_the_same_model(change, tmp_path):
    directory = write(tmp_path / "model")
    restore(directory, change(stored(directory)))
    assert_same(read(directory).params, ours("bert")[1])


@pytest.mark.parametrize("kind", ["albert", "distilbert", "roberta"])
def test_a_prefix_may_be_absent_in_every_family(kind, tmp_path):
    directory = write(tmp_path / "model", kind)
    restore(directory, without_prefix(stored(directory)))
    assert_same(read(directory).params, ours(kind)[1])


def test_shards_are_read(tmp_path):
    directory = write(tmp_path / "model")
    tensors = stored(directory)
    (directory / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(places.values()):
        some = {name: x for name, x in tensors.items() if places[name] == file}
        safetensors.numpy.save_file(some, directory / file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same(read(directory).params, ours("bert")[1])


def test_half_precision_becomes_float32(tmp_path):
    directory = write(tmp_path / "model")
    restore(directory, {name: x.astype(np.float16) for name, x in stored(directory).items()})
    query = read(directory).params["encoder"]["groups"]["attention"]["query"]["kernel"]
    expected = ours("bert")[1]["encoder"]["groups"]["attention"]["query"]["kernel"]
    np.testing.assert_array_equal(query, expected.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "heads", "fresh"),
    [
        ("bert", ("cls.",), ("mlm_head", "pair_head")),
        ("bert", ("cls.predictions.",), ("mlm_head",)),
        ("bert", ("cls.", "bert.pooler"), ("mlm_head", "pooler", "pair_head")),
        ("bert_without_pair", (), ("pooler", "pair_head")),
        ("albert", ("predictions.", "sop_"), ("mlm_head", "pair_head")),
        ("distilbert", ("vocab_",), ("mlm_head",)),
        ("roberta", ("lm_head.",), ("mlm_head", "pooler")),
    ],
)
def test_absent_heads_are_named(kind, heads, fresh, tmp_path):
    """An MLM head is made, the same each time; the others are switched off."""
    directory = write(tmp_path / "model", kind)
    restore(directory, {name: x for name, x in stored(directory).items() if not name.startswith(heads or "none")})
    contents, again = read(directory), read(directory)
    assert contents.fresh == fresh
    assert contents.params.keys() == {"encoder", *contents.config.heads} and "mlm_head" in contents.config.heads
    assert not {"pooler", "pair_head"} & set(contents.config.heads) & set(fresh)
    assert_same(contents.params, again.params)
    head = contents.params["mlm_head"]
    if "mlm_head" in fresh:
        std = 0.88 * contents.config.initializer_range  # what is left of a normal cut at two
        assert abs(head["dense"]["kernel"].std() / std - 1) < 0.1 and abs(head["dense"]["kernel"]).max() < 0.2 + 1e-6
        assert (head["norm"]["scale"] == 1).all() and not head["norm"]["bias"].any() and not head["bias"].any()


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (lambda t: t | {"bert.extra.weight": t[WORD]}, ["'bert.extra.weight' is unknown"]),
        (lambda t: {n: x for n, x in t.items() if n != QUERY}, ["layer.1.attention.self.query.weight is missing"]),
        (lambda t: {n.replace("query", "q"): x for n, x in t.items()}, ["query.weight is missing", "and 6 more"]),
        (lambda t: {n.replace("pooler", "pool"): x for n, x in t.items()}, ["'bert.pool.dense.bias' is unknown"]),
        (lambda t: t | {QUERY: t[QUERY][:, :-1].copy()}, [f"{QUERY} is [32, 31] of F32, not [32, 32]"]),
        (lambda t: t | {QUERY: t[QUERY].astype(np.int32)}, [f"{QUERY} is [32, 32] of I32, not"]),
        (lambda t: t | {"classifier.weight": t[QUERY][:1]}, ["classifier.bias is missing"]),
        (
            lambda t: t | {"qa_outputs.weight": t[QUERY]},
            ["qa_outputs.bias is missing", "is [32, 32] of F32, not [2, 32]"],
        ),
        (lambda t: {n: x for n, x in t.items() if "pooler" not in n}, ["pooler.dense.weight is missing"]),
        (lambda t: t | {"cls.predictions.decoder.weight": t[WORD] + 1}, ["decoder.weight differs from", "one tensor"]),
        (lambda t: t | {WORD.removeprefix("bert."): t[WORD] + 1}, ["word_embeddings.weight differs from"]),
        (lambda t: t | {"x\n\x1b[31m" * 99: t[WORD]}, ["is unknown"]),
    ],
    ids=lambda x: "" if callable(x) else x[0][:40],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, texts, tmp_path):
    directory = write(tmp_path / "model")
    restore(directory, change(stored(directory)))
    refused(directory, *texts)


def test_nothing_is_loaded_before_the_names_are_right(tmp_path, monkeypatch):
    directory = write(tmp_path / "model")
    reconfigure(directory, num_hidden_layers=3)
    monkeypatch.setattr(weights, "load", None)
    refused(directory, "'bert.encoder.layer.3.attention.output.LayerNorm.bias' is unknown", "and 6 more")


@pytest.mark.parametrize("value", ["gpt2", None, 3, ["bert"], "BERT"])
def test_a_foreign_architecture_is_refused(value, tmp_path):
    directory = write(tmp_path / "model")
    reconfigure(directory, model_type=value)
    refused(directory, "model_type", "bert, roberta, albert, distilbert")


def test_a_damaged_or_absent_file_is_refused(tmp_path):
    directory = write(tmp_path / "model")
    weights = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(weights[:-1])
    refused(directory, "model.safetensors", "damaged")
    (directory / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + weights[8:])
    refused(directory, "model.safetensors", "a header of 4,611,686,018,427,387,904 bytes")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    refused(directory, "pytorch_model.bin", "can run code")
    (directory / "config.json").unlink()
    refused(directory, "config.json", "cannot be read")


def test_the_product_of_an_albert_of_one_size_must_do_nothing(tmp_path):
    directory = write(tmp_path / "model", "albert_wide")
    tensors = stored(directory)
    for name, x in tensors.items():
        if "embedding_hidden_mapping_in" in name:
            restore(directory, tensors | {name: x + 1e-6})
            refused(directory, "embedding_hidden_mapping_in is not the identity")


# What is not written ------------------------------------------------------------------------------------------------


def test_an_export_is_whole_or_not_there(tmp_path, monkeypatch):
    """An existing target, a model or tokenizer that cannot be held, and a disk that fails leave nothing behind."""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(400))]))
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    target = tmp_path / "new"
    no_types = dataclasses.replace(model_of("bert"), token_types=0)
    _, albert = ours("albert")
    for error, text, directory, changes in (
        (StorageError, "exists", full, {}),
        (StorageError, "exists", vocabulary, {}),
        (StorageError, "cannot be written", vocabulary / "below", {}),
        (ConfigError, "model.heads", target, {"config": no_types}),
        (CheckpointError, "params: encoder/embeddings/norm/bias", target, {"params": albert}),
        (DataError, "405 pieces, more than model.vocab_size = 400", target, {"tokenizer": vocabulary}),
        (DataError, "cannot be read", target, {"tokenizer": tmp_path / "no.txt"}),
    ):
        with pytest.raises(error, match=re.escape(text)) as caught:
            write(directory, **changes)
        assert len(str(caught.value).splitlines()) == 1
        assert sorted(tmp_path.rglob("*")) == before

    def fail(*_):
        raise OSError(28, "No space left on device")

    for last in ("write_bytes", "replace"):  # the weights, and the rename of what has been written
        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), last, fail)
            with pytest.raises(StorageError, match="No space left"):
                write(target)
        assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_directory_is_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    assert read(write(tmp_path / "empty")).family == "bert"
