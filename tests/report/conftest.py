"""Prepared data sets that tests of reports share."""

import pytest
from reported import make, prose, told


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """More than a thousand documents in which nothing is wrong."""
    text = prose(1300, [4, 8, 12], seed=1).encode()
    return make(tmp_path_factory.mktemp("clean"), {"clean.txt": text}, holdout=0.5)


@pytest.fixture(scope="session")
def faults(faulty):
    return told(faulty)


@pytest.fixture(scope="session")
def faulty(tmp_path_factory):
    """A little of everything that can be wrong; what was planted where is counted in the test of it."""
    paragraphs = [
        b"w1 w2 xyzzy.\nw3 plugh.",
        b"w1 w2 xyzzy.\nw3 plugh.",
        b"caf\xe9 w1.\n\xe9 w2.",
        b"w1 \0w2.\nw3 w4.",
        b"w5 " * 400_000,
        b"\1",
        b"<script>w6</script> & w7s.",
        b"w1 w2 xyzzy.\nw3 plugh.",
    ]
    lines = ['{"text": ""}', '{"text": " "}', '{"text": "w8 w9."}', "no JSON", '{"other": "w1."}']
    lines += ['{"text": "w\\u00008."}']
    sources = {"<script>a.txt": b"\n\n".join(paragraphs) + b"\n", "b.jsonl": "\n".join(lines).encode()}
    return make(tmp_path_factory.mktemp("faulty"), sources, holdout=0.001)
