"""What is not finite, a NaN or an infinity, gets into no weights: its update is skipped, and what is saved, restored or
reported is refused with its name and place.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bertjax.errors import NumericError

FIX = "lower optim.lr or set optim.clip_norm, and start in another --workdir"


def skip(update: Callable[[Any], Any], old: Any, *sums: jax.Array) -> tuple[jax.Array, Any]:
    """Whether an update is skipped, as 1.0 or 0.0, and the state after it: `update(old)`, or where one of the scalars
    `sums` is not finite `old`, but for the count that the learning rate follows.

    One scalar decides for all arrays and on all devices. A branch costs nothing of the memory's time; to choose in each
    element between old and new would nearly double that of an optimizer.
    """
    finite = jnp.stack([jnp.isfinite(x) for x in sums]).all()

    def keep(old: Any) -> Any:
        return jax.tree.map(_counted, old, is_leaf=_is_rate)

    return 1.0 - finite.astype(jnp.float32), jax.lax.cond(finite, update, keep, old)


def _counted(x: Any) -> Any:
    return optax.ScaleByScheduleState(optax.safe_increment(x.count)) if _is_rate(x) else x


def _is_rate(x: Any) -> bool:
    return isinstance(x, optax.ScaleByScheduleState)


@dataclass(frozen=True)
class Skipped:
    """How many updates a run has skipped: in a row up to now, and in all."""

    in_a_row: int = 0
    in_all: int = 0

    def after(self, skipped: bool) -> "Skipped":
        """Of the run after one more step."""
        return Skipped(self.in_a_row + 1, self.in_all + 1) if skipped else Skipped(0, self.in_all)


NOTHING = Skipped()


class Diverged(Exception):
    """So many updates in a row were skipped that those which follow will be too: the last of them, and why."""

    def __init__(self, step: int, skipped: Skipped, reason: str) -> None:
        super().__init__(step, skipped, reason)
        self.step, self.skipped, self.reason = step, skipped, reason


def not_finite(values: Mapping[str, float | None]) -> str:
    """Those of `values` that are no finite numbers, for a person; None stands for one that is not known."""
    return ", ".join(f"{name} {x}" for name, x in values.items() if x is not None and not math.isfinite(x))


def check_values(where: str, values: Mapping[str, float | None]) -> None:
    """Raise NumericError with all of `values` that are no finite numbers; None stands for one that is not known."""
    if bad := not_finite(values):
        raise NumericError(f"{where}: {bad}: no longer a number; earlier checkpoints are intact: {FIX}")


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
