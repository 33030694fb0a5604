"""What is saved, restored or reported is finite: a NaN or an infinity ends a run with its name and place."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.errors import NumericError

FIX = "lower optim.lr or set optim.clip_norm, and start in another --workdir"


def check_values(where: str, values: Mapping[str, float | None]) -> None:
    """Raise NumericError with all of `values` that are no finite numbers; None stands for one that is not known."""
    bad = [f"{name} {x}" for name, x in values.items() if x is not None and not math.isfinite(x)]
    if bad:
        raise NumericError(f"{where}: {', '.join(bad)}: no longer a number; earlier checkpoints are intact: {FIX}")


def check_state(step: int, state: Any) -> None:
    """Raise NumericError with the first array of the train state after `step` that is not finite.

    The loss of a step can be a number where its update overflows. Waits for the step to be computed.
    """
    if name := _first_bad(state):
        raise NumericError(
            f"step {step}: {name} is no longer finite, so it is not saved; earlier checkpoints are intact: {FIX}"
        )


def check_restored(place: Path, arrays: Any) -> None:
    """Raise NumericError with the first of `arrays`, read from `place`, that is not finite."""
    if name := _first_bad(arrays):
        raise NumericError(f"{place}: {name} is not finite, so the model is of no use; name or restore another")


def _first_bad(tree: Any) -> str:
    """The path of the first array of floats with a NaN or an infinity; "" if there is none.

    Arrays are reduced where they are: only a boolean for each comes from a device, and NumPy arrays go to none.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    floats = {path: x for path, x in leaves if jnp.issubdtype(x.dtype, jnp.floating)}
    on_devices = [x for x in floats.values() if isinstance(x, jax.Array)]
    known = iter(jax.device_get(_all_finite(on_devices)))  # one computation and one answer for all of them
    for path, x in floats.items():
        if not (next(known) if isinstance(x, jax.Array) else np.isfinite(x).all()):
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return ""


@jax.jit
def _all_finite(arrays: list[jax.Array]) -> list[jax.Array]:
    return [jnp.isfinite(x).all() for x in arrays]
