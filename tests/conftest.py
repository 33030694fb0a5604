"""Strict JAX on eight CPU devices, and the texts that tests share."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import pydoc_data.topics
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory) -> Path:
    """Real English: some topics of the language reference, one document each."""
    topics = sorted(pydoc_data.topics.topics)[:40]
    path = tmp_path_factory.mktemp("corpus") / "topics.txt"
    documents = [" ".join(pydoc_data.topics.topics[t].split()).replace(". ", ".\n") for t in topics]
    path.write_text("\n\n".join(documents))
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets beside the project; a test that needs them is skipped where they are absent."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the data sets beside the project are absent")
    return path
