"""What can happen to a file of a prepared data set, and how to make its checksums say that it is whole."""

import numpy as np

from bertjax import storage


def flip(path, place=0.5, bit=0):
    """One bit, at this share of the file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)


def noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


DAMAGE = {
    "a bit": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "noise": noise,
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}
"""What can happen to a file."""


def reseal(directory, **changes):
    """Write the metadata with some of its keys changed, and with checksums of the files as they are now."""
    path = directory / "bertjax.json"
    metadata, whole = storage.unseal(path.read_text())
    assert whole
    files = {name: storage.checksum(directory / name) for name in metadata["files"]}
    path.write_text(storage.seal(metadata | {"files": files} | changes))
