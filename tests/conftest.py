"""Strict JAX on eight CPU devices, and the texts that tests share."""

import os
import pydoc_data.topics
from pathlib import Path

import pytest

# Tests compile much and compute little: unoptimised code compiles three times faster. JAX reads this when it starts.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory) -> Path:
    """Real English: some topics of the language reference, one document each."""
    topics = sorted(pydoc_data.topics.topics)[:40]
    path = tmp_path_factory.mktemp("corpus") / "topics.txt"
    documents = [" ".join(pydoc_data.topics.topics[t].split()).replace(". ", ".\n") for t in topics]
    path.write_text("\n\n".join(documents))
    return path
