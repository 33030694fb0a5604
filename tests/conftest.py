"""Strict JAX on eight CPU devices, and what tests share: text, a tokenizer, a data set, compiled steps."""

import os
import pydoc_data.topics
import tempfile
from pathlib import Path

import pytest

# Tests compile much and compute little: unoptimised code compiles three times faster. JAX reads this when it starts.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# The same step is compiled once in a session, whatever test asks for it.
CACHE = tempfile.TemporaryDirectory(prefix="bertjax-tests-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

WHOLE_RUNS = (
    "tasks/test_pretrain.py",
    "test_docs.py",
    "tasks/test_distill.py",
    "train/test_step.py",
    "cli/test_main.py",
)
"""Files with the longest tests, though not with the most."""


def pytest_collection_modifyitems(items):
    """The longest files first: of two processes none is then left alone with one of them at the end."""
    order = {path: place for place, path in enumerate(WHOLE_RUNS)}
    root = Path(__file__).parent
    items.sort(key=lambda item: order.get(item.path.relative_to(root).as_posix(), len(order)))


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory) -> Path:
    """Real English: some topics of the language reference, one document each."""
    topics = sorted(pydoc_data.topics.topics)[:40]
    path = tmp_path_factory.mktemp("corpus") / "topics.txt"
    documents = [" ".join(pydoc_data.topics.topics[t].split()).replace(". ", ".\n") for t in topics]
    path.write_text("\n\n".join(documents))
    return path


@pytest.fixture(scope="session")
def inputs(corpus_file, tmp_path_factory):
    """Overrides that point to a tokenizer and a data set made from the corpus."""
    root = tmp_path_factory.mktemp("inputs")
    from small import tiny  # here, since it imports JAX, which reads the settings above when it starts

    from bertjax.corpus import prepare
    from bertjax.corpus import units as corpus
    from bertjax.vocabulary.unigram import train_sentencepiece

    data = tiny(data={"source": (str(corpus_file),)}).data
    texts = (sentence for document in corpus.documents(data) for sentence in document)
    train_sentencepiece(texts, root / "spiece.model", vocab_size=400, lower_case=True)
    prepare.prepare(data, root / "spiece.model", root / "data", runner=prepare.local(1))
    return {"source": (str(corpus_file),), "tokenizer": str(root / "spiece.model"), "prepared": str(root / "data")}


@pytest.fixture(scope="session")
def trained(inputs, tmp_path_factory):
    """A finished run of six steps, with evaluations and saves at steps 3 and 6: its config and its directory."""
    from small import tiny  # as above

    from bertjax.tasks.pretrain import pretrain

    directory = tmp_path_factory.mktemp("trained")
    config = tiny(data=inputs)
    assert pretrain(config, directory)
    return config, directory


@pytest.fixture(scope="session")
def _bucket_server():
    """Of a process there is one: TensorStore asks for its address once."""
    from pretended_bucket import Bucket

    server = Bucket()
    os.environ.update(server.environment)
    return server


@pytest.fixture
def bucket(_bucket_server, monkeypatch, tmp_path):
    """A bucket `bkt`, empty, with copies of it in a directory of the test."""
    _bucket_server.empty()
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path / "copies"))
    return _bucket_server
