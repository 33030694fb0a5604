"""A trained model to call: of a work directory or of a Hugging Face directory. `bertjax.load` is the way in.

Shape letters: B texts, L tokens of the longest, H hidden size, V vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.config.schema import ModelConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError
from bertjax.model import network as model
from bertjax.trained import load as pretrained

ROWS = 32
"""Most rows that run at once; more run one batch after the other."""


class Outputs(NamedTuple):
    """What the model gives, float32 NumPy arrays; None for what was not asked for or has no trained head."""

    hidden: np.ndarray | None  # [B, L, H]
    pooled: np.ndarray | None  # [B, H]
    mlm_logits: np.ndarray | None  # [B, L, V]
    pair_logits: np.ndarray | None  # [B, 2]


HEADS = {"pooled": "pooler", "mlm_logits": "mlm_head", "pair_logits": "pair_head"}
"""Output -> the part of the model that must have been trained for it."""


@dataclass(frozen=True)
class Loaded:
    """A model with its parameters, callable on batches of token ids, by any number of threads at once.

    Batches are padded to a length of `padded_length` and to 1, 2, 4, 8, 16 or 32 rows: 84 shapes at most for 512
    positions. Each is compiled when it is first met, once for each set of outputs that is asked for (seconds for a
    large model); call it on the shapes that will come before serving.
    """

    config: ModelConfig
    params: Any  # float32, on the first device
    tokenizer: Tokenizer | None  # None where the directory has none that bertjax reads
    heads: frozenset[str]  # of "mlm_head", "pair_head", "pooler": those that were trained

    def __call__(
        self, tokens: Any, token_types: Any = None, mask: Any = None, *, outputs: Collection[str] = Outputs._fields
    ) -> Outputs:
        """Outputs for `tokens` [B, L]; `token_types` (default: all 0) and `mask` (1 = real, default: all) likewise.

        What is in the padding never changes the rest. `outputs` names what is wanted and the rest is not computed:
        `mlm_logits` take 4 * B * L * V bytes, 2 GB for 32 texts of 512 tokens and BERT's vocabulary, and twice that
        for a moment. Raises DataError for arrays of another shape or kind and ids that the model does not have.
        """
        if unknown := sorted(set(outputs) - set(Outputs._fields)):
            raise DataError(f"outputs: {', '.join(unknown)}: unknown; they are {', '.join(Outputs._fields)}")
        tokens_BL = _checked("tokens", tokens, None, self.config.vocab_size)
        B, L = tokens_BL.shape
        if not 0 < L <= self.config.max_positions:
            raise DataError(
                f"tokens: {L} positions; the model takes 1 to {self.config.max_positions}, cut or split them"
            )
        types_BL, mask_BL = np.zeros_like(tokens_BL), np.ones_like(tokens_BL)
        if token_types is not None:
            types_BL = _checked("token_types", token_types, tokens_BL.shape, max(self.config.token_types, 1))
        if mask is not None:
            mask_BL = _checked("mask", mask, tokens_BL.shape, 2)
        wanted = [n for n in Outputs._fields if n in outputs and (n not in HEADS or HEADS[n] in self.heads)]
        parts = []
        for start in range(0, max(B, 1), ROWS):
            rows = [x[start : start + ROWS] for x in (tokens_BL, types_BL, mask_BL)]
            values = jax.device_get(self._run(tuple(wanted), *rows))
            parts.append({n: x[: len(rows[0]), :L] if x.ndim == 3 else x[: len(rows[0])] for n, x in values.items()})
        joined = {n: np.concatenate([part[n] for part in parts]) for n in wanted}
        return Outputs(*(joined.get(n) for n in Outputs._fields))

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """An embedding of each text, in their order, float32 [B, H]: the mean of the last hidden states of its tokens.

        [CLS] and [SEP] count as tokens; what is longer than the model's positions is cut. Texts of similar length
        share a batch, so little is spent on padding: give many at once. Raises DataError for what is no list of str.
        """
        if self.tokenizer is None:
            raise DataError("encode_text: this model came without a tokenizer that bertjax reads; call it on token ids")
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise DataError("encode_text: takes a list of str; put a single text into a list")
        special, most = self.tokenizer.special, self.config.max_positions - 2
        ids_n, lengths = self.tokenizer.encode_batch(list(texts))
        rows = [[special.cls, *ids[:most], special.sep] for ids in np.split(ids_n, np.cumsum(lengths))[:-1]]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        embeddings_BH = np.zeros((len(rows), self.config.hidden_size), np.float32)
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            L = len(rows[chosen[-1]])
            tokens_BL, mask_BL = np.zeros((len(chosen), L), np.int32), np.zeros((len(chosen), L), np.int32)
            for i, index in enumerate(chosen):
                tokens_BL[i, : len(rows[index])] = rows[index]
                mask_BL[i, : len(rows[index])] = 1
            means_BH = self._run(("mean",), tokens_BL, np.zeros_like(tokens_BL), mask_BL)["mean"]
            embeddings_BH[chosen] = np.asarray(means_BH)[: len(chosen)]
        return embeddings_BH

    def _run(self, wanted: tuple[str, ...], *columns: np.ndarray) -> dict[str, jax.Array]:
        B, L = columns[0].shape
        rows, length = 1 << max(B - 1, 0).bit_length(), padded_length(L, self.config.max_positions)
        padded = [np.pad(x, ((0, rows - B), (0, length - L))) for x in columns]
        # Nothing is dropped and the platform may be another than in training.
        config = replace(self.config, attention="auto", dropout=0.0, attention_dropout=0.0, remat="none")
        return _compiled()(config, wanted, self.params, *padded)


def load(path: str | Path) -> Loaded:
    """The model in `path`: a work directory (its newest checkpoint) or a Hugging Face directory.

    It computes in the dtype of its config, which is float32 for Hugging Face directories. Raises ConfigError,
    CheckpointError or DataError for a directory that is neither, or damaged.
    """
    found = pretrained.load(path)
    if found.tokenizer and found.tokenizer.vocab_size > found.model.vocab_size:
        pieces, rows = found.tokenizer.vocab_size, found.model.vocab_size
        raise DataError(f"{path}: its tokenizer has {pieces} pieces and its model {rows}; restore the one it came with")
    return Loaded(found.model, jax.device_put(found.params), found.tokenizer, found.heads)


def padded_length(length: int, most: int) -> int:
    """The length that a batch is padded to: a multiple of 16 up to 128, of 64 beyond, and at most `most`."""
    step = 16 if length <= 128 else 64
    return min(-(-length // step) * step, most)


def _checked(name: str, values: Any, shape: tuple[int, ...] | None, below: int) -> np.ndarray:
    wanted = f"must be integers of shape {list(shape) if shape else '[batch, length]'}"
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(f"{name}: rows of different lengths; {wanted}") from None
    whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool
    if array.ndim != 2 or (shape and array.shape != shape) or not whole:
        raise DataError(f"{name}: {array.dtype} array of shape {list(array.shape)}; {wanted}")
    if array.size and not 0 <= array.min() <= array.max() < below:
        raise DataError(f"{name}: holds values from {array.min()} to {array.max()}; must be 0 to {below - 1}")
    return array.astype(np.int32)


_EIGEN = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""On CPU, Eigen's matrix products instead of YNNPACK's, which XLA takes otherwise: a fifth less time for BERT-base."""


@cache
def _compiled() -> Any:
    options = _EIGEN if jax.default_backend() == "cpu" else {}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # a jaxlib without this option
        options = {}
    return jax.jit(_outputs, static_argnums=(0, 1), compiler_options=options)


def _outputs(
    config: ModelConfig,
    wanted: tuple[str, ...],
    params: Any,
    tokens_BL: jax.Array,
    types_BL: jax.Array,
    mask_BL: jax.Array,
) -> dict[str, jax.Array]:
    """Those of `Outputs` and "mean", the hidden states averaged over the real tokens, [B, H]."""
    B, L = tokens_BL.shape
    positions_BL = jnp.broadcast_to(jnp.arange(L)[None, :], (B, L))
    batch = {"tokens": tokens_BL, "segments": mask_BL, "positions": positions_BL, "token_types": types_BL}
    batch |= {"mlm_positions": positions_BL, "pair_positions": jnp.zeros((B, 1), jnp.int32)}
    values = model.apply(config, params, batch)
    found = {name: values[name] for name in ("hidden", "mlm_logits")}
    found |= {name: values[name][:, 0] for name in ("pooled", "pair_logits") if name in values}
    real_BL = mask_BL.astype(jnp.float32)
    sums_BH = jnp.einsum("BLH,BL->BH", values["hidden"].astype(jnp.float32), real_BL)
    found["mean"] = sums_BH / jnp.maximum(real_BL.sum(axis=1), 1.0)[:, None]
    return {name: found[name].astype(jnp.float32) for name in wanted}
