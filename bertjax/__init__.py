"""Pretraining of the BERT family in JAX and Flax."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bertjax.trained.inference import Loaded


def load(path: "str | Path") -> "Loaded":
    """A trained model to call, of a work directory or a Hugging Face directory: see `bertjax.trained.inference`."""
    from bertjax.trained import inference  # here: `import bertjax` alone must not take the seconds that jax does

    return inference.load(path)
