"""What a kernel of the attention is compiled for, whatever the platform.

Powers are of two, not of e, and so are logarithms.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

UNSEEN = -(2.0**100)
"""The score of what is not seen: a power of two, whose product with a scale is exact."""


@dataclass(frozen=True)
class Case:
    """What a kernel is compiled for, besides its shapes. `kept`: of 65536 probabilities; 65536 = no dropout."""

    kept: int
    has_window: bool
    head_dim: int
    dtype: str
    interpret: bool

    @property
    def scale(self) -> float:
        """Of the scores, as exponents of two."""
        return self.head_dim**-0.5 * math.log2(math.e)

    @property
    def drops(self) -> bool:
        return self.kept < 2**16

    @property
    def share(self) -> float:
        """Of the probabilities that are kept."""
        return self.kept / 2**16

    def product(self, a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
        """A float32 product of two matrices over these axes."""
        precision = self.precision() if self.dtype == "float32" else None
        dimensions = (((contract[0],), (contract[1],)), ((), ()))
        return jax.lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)

    def precision(self) -> Any:
        """Of products of float32 numbers."""
        return jax.lax.Precision.HIGHEST
