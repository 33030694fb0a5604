"""Weights that somebody else made: every lie of a header is refused by name, and no tensor is read before that."""

import json
import pickle

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from bertjax.errors import CheckpointError
from bertjax.huggingface.safetensors import HEADER_LIMIT, INDEX, JSON_LIMIT, SIZES, WEIGHTS, load, read_json, tensors

TENSORS = {"a": np.ones((2, 3), np.float32), "b": np.arange(4, dtype=np.float16), "c": np.array(2, np.float32)}
WHOLE = safetensors.numpy.save(TENSORS, {"format": "pt"})
END = 8 + int.from_bytes(WHOLE[:8], "little")


def with_header(change, data=WHOLE[END:]):
    """The file with another header: `change` is the text, or what to update in it."""
    header = json.loads(WHOLE[8:END])
    text = change if isinstance(change, bytes) else json.dumps(header | change).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


A = json.loads(WHOLE[8:END])["a"]["data_offsets"]
REFUSED = {
    "empty": b"",
    "short": WHOLE[:7],
    "cut in the header": WHOLE[:20],
    "cut in the data": WHOLE[:-1],
    "longer": WHOLE + b"\0",
    "header of 2^60 bytes": (2**60).to_bytes(8, "little") + WHOLE[8:],
    "header over the limit": (HEADER_LIMIT + 1).to_bytes(8, "little") + WHOLE[8:],
    "not JSON": with_header(b"{" * 40),
    "nested without end": with_header(b"[" * 100_000),
    "a list": with_header(b"[]"),
    "not UTF-8": with_header(b'{"\xff": 1}'),
    "a name twice": with_header(b'{"a": 1, "a": 1}'),
    "not an entry": with_header({"a": 3}),
    "no shape": with_header({"a": {"dtype": "F32", "data_offsets": A}}),
    "unknown type": with_header({"a": entry("F7", offsets=A)}),
    "type that is a list": with_header({"a": entry(["F32"], offsets=A)}),
    "other type": with_header({"a": entry("F16", offsets=A)}),
    "other shape": with_header({"a": entry(shape=(2, 2), offsets=A)}),
    "negative shape": with_header({"a": entry(shape=(-2, -3), offsets=A)}),
    "shape of floats": with_header({"a": entry(shape=(2.0, 3.0), offsets=A)}),
    "shape of bools": with_header({"a": entry(shape=(True, 6), offsets=A)}),
    "many dimensions": with_header({"a": entry(shape=(2, 3, *[1] * 9), offsets=A)}),
    "overlap": with_header({"a": entry(offsets=A), "b": entry("F16", [4], [A[0], A[0] + 8])}),
    "gap": with_header({"a": entry(offsets=[A[0] + 1, A[1] + 1])}),
    "outside": with_header({"a": entry(offsets=[1000, 1024])}),
    "before the start": with_header({"a": entry(offsets=[-24, 0])}),
    "swapped": with_header({"a": entry(offsets=A[::-1])}),
    "three offsets": with_header({"a": entry(offsets=[*A, 9])}),
    "pickle": pickle.dumps({"a": 1}),
}


def write(directory, content, name=WEIGHTS):
    (directory / name).write_bytes(content)
    return directory


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED.keys())
def test_a_damaged_file_is_refused(content, tmp_path):
    with pytest.raises(CheckpointError) as error:
        tensors(write(tmp_path, content))
    (line,) = str(error.value).splitlines()
    assert WEIGHTS in line and line.endswith("copy it again") and len(line) < 400


@given(position=st.integers(0, END - 1), byte=st.integers(0, 255))
def test_a_damaged_byte_of_the_header_is_refused_or_harmless(tmp_path_factory, position, byte):
    """Whatever is read lies within the file."""
    content = bytearray(WHOLE)
    content[position] = byte
    directory = write(tmp_path_factory.mktemp("damaged"), bytes(content))
    try:
        found = tensors(directory)
    except CheckpointError:
        return
    assert sum(int(np.prod(t.shape)) * SIZES[t.dtype] for t in found) == len(WHOLE) - END


def test_tensors_are_read_as_float32(tmp_path):
    """bfloat16 and half exactly; buffers of other types are listed, not read."""
    x = np.array([1.5, -2.0, 3.0e-5], np.float32)
    header, data = {}, b""
    for name, dtype, values in (
        ("f32", "F32", x),
        ("f16", "F16", x.astype(np.float16)),
        ("bf16", "BF16", x.astype(ml_dtypes.bfloat16)),
        ("ids", "I64", np.arange(3)),
    ):
        header[name] = entry(dtype, values.shape, (len(data), len(data) + values.nbytes))
        data += values.tobytes()
    directory = write(tmp_path, with_header(json.dumps(header).encode(), data))
    found = {tensor.name: tensor for tensor in tensors(directory)}
    assert found["ids"].dtype == "I64"
    for name, dtype in (("f32", np.float32), ("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        loaded = load([found[name]])
        assert loaded.dtype == np.float32 and loaded.tolist() == x.astype(dtype).astype(np.float32).tolist()


def test_a_file_that_shrank_after_its_header_was_read_is_refused(tmp_path):
    tensor = tensors(write(tmp_path, WHOLE))[-1]
    write(tmp_path, WHOLE[:END])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load([tensor])


def shards(directory, places):
    for file in ("x.safetensors", "y.safetensors"):
        names = {"x.safetensors": ["a", "b"], "y.safetensors": ["c"]}[file]
        write(directory, safetensors.numpy.save({name: TENSORS[name] for name in names}), file)
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return directory


ELSEWHERE = ("../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..\\x.safetensors")
PLACES = {"a": "x.safetensors", "b": "x.safetensors", "c": "y.safetensors"}


def test_shards_are_one_file(tmp_path):
    found = tensors(shards(tmp_path, PLACES))
    for tensor in found:
        np.testing.assert_array_equal(load([tensor]), TENSORS[tensor.name])
    assert [tensor.name for tensor in found] == ["a", "b", "c"]


@pytest.mark.parametrize("file", ["..", "", "x.bin", 3, None, "\0.safetensors", *ELSEWHERE])
def test_a_shard_elsewhere_is_refused(file, tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path, WHOLE, "x.safetensors")
    with pytest.raises(CheckpointError) as error:
        tensors(shards(tmp_path / "in", PLACES | {"a": file}))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("places", "text"),
    [
        (PLACES | {"a": "y.safetensors"}, "'a'"),
        (PLACES | {"d": "y.safetensors"}, "'d'.*not there"),
        ({"a": "x.safetensors", "c": "y.safetensors"}, "'b'.*not list"),
        (PLACES | {"a": "z.safetensors"}, "z.safetensors: cannot be read"),
        ({}, "weight_map"),
        ([], "weight_map"),
    ],
)
def test_an_index_that_is_not_of_its_shards_is_refused(places, text, tmp_path):
    with pytest.raises(CheckpointError, match=text):
        tensors(shards(tmp_path, places))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.ckpt", "weights.pt"])
def test_pickles_are_not_opened(name, tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, ("raise SystemExit('the pickle was run')",))

    write(tmp_path, pickle.dumps(Trap()), name)
    with pytest.raises(CheckpointError, match=rf"{name}: loading this format can run code.*save_pretrained"):
        tensors(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path):
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=r"holds neither model\.safetensors nor"):
            tensors(directory)


@pytest.mark.parametrize("text", ["", "[]", "{", "3", '{"a": 1, "a": 2}', "[" * 100_000, "\udcff"])
def test_json_that_is_no_object_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json: is not a JSON object") as error:
        read_json(tmp_path / "config.json")
    assert len(str(error.value).splitlines()) == 1


def test_huge_json_is_not_read(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(JSON_LIMIT + 1)
    with pytest.raises(CheckpointError, match="more than 10,000,000 bytes"):
        read_json(tmp_path / "config.json")
