"""A trained model to call: of a work directory or of a Hugging Face directory. `bertjax.load` is the way in.

Shape letters: B texts, L tokens of the longest, H hidden size, P chosen positions, V vocabulary, C labels.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.config.schema import ComputeConfig, ModelConfig, TaskConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError
from bertjax.labelled.example import Example
from bertjax.model.heads import HEADS
from bertjax.model.network import apply
from bertjax.trained import predict
from bertjax.trained.load import Trained
from bertjax.trained.load import load as load_trained
from bertjax.trained.texts import checked_texts

ROWS = 32
"""Most rows that run at once; more run one batch after the other."""

HEAD_OF = {head.gives: name for name, head in HEADS.items()}
"""Output -> the head that must have been trained for it."""

PER_TOKEN = ("hidden", "mlm_logits", "tag_logits", "span_logits")
PER_TEXT = ("pooled", "pair_logits", "class_logits")
"""Outputs of each token of a row, and of its one example."""


class Outputs(NamedTuple):
    """What the model gives, float32 NumPy arrays; None for what was not asked for or has no trained head."""

    hidden: np.ndarray | None  # [B, L, H]
    pooled: np.ndarray | None  # [B, H]
    mlm_logits: np.ndarray | None  # [B, L, V], or [B, P, V]
    pair_logits: np.ndarray | None  # [B, 2]
    class_logits: np.ndarray | None = None  # [B, C]
    tag_logits: np.ndarray | None = None  # [B, L, C]
    span_logits: np.ndarray | None = None  # [B, L, 2], of the first and the last token of an answer


@dataclass(frozen=True)
class Loaded:
    """A model with its parameters, callable on batches of token ids, by any number of threads at once.

    Batches are padded to a length of `padded_length` and to 1, 2, 4, 8, 16 or 32 rows: 84 shapes at most for 512
    positions. Each is compiled when it is first met, once for each set of outputs that is asked for (seconds for a
    large model); call it on the shapes that will come before serving.
    """

    config: ModelConfig
    compute: ComputeConfig
    params: Any  # float32, on the first device
    tokenizer: Tokenizer | None  # None where the directory has none that bertjax reads
    heads: frozenset[str]  # of those in config.heads: those that were trained
    task: TaskConfig = TaskConfig()  # of its fine-tuning; the defaults where it had none, or came from elsewhere
    seq_len: int = 0  # most tokens of an example of that task; 0 = the positions of the model

    def __call__(
        self,
        tokens: Any,
        token_types: Any = None,
        mask: Any = None,
        *,
        mlm_positions: Any = None,
        outputs: Collection[str] = Outputs._fields,
    ) -> Outputs:
        """Outputs for `tokens` [B, L]; `token_types` (default: all 0) and `mask` (1 = real, default: all) likewise.

        What is in the padding never changes the rest. `outputs` names what is wanted and the rest is not computed:
        `mlm_logits` take 4 * B * L * V bytes, 2 GB for 32 texts of 512 tokens and BERT's vocabulary, and twice that
        for a moment, or only 4 * B * P * V where `mlm_positions` [B, P] says at which positions they are wanted. P is
        padded to a power of two, and each compiles anew. Raises DataError for arrays of another shape or kind and ids
        that the model does not have.
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
        columns, kept = [tokens_BL, types_BL, mask_BL], dict.fromkeys(PER_TOKEN, L)
        if mlm_positions is not None:
            at_BP = _checked("mlm_positions", mlm_positions, None, L)
            if len(at_BP) != B:
                raise DataError(f"mlm_positions: {len(at_BP)} rows; give one for each of the {B} rows of tokens")
            columns.append(at_BP)
            kept["mlm_logits"] = at_BP.shape[1]
        wanted = [n for n in Outputs._fields if n in outputs and (n not in HEAD_OF or HEAD_OF[n] in self.heads)]
        parts = []
        for start in range(0, max(B, 1), ROWS):
            rows = [x[start : start + ROWS] for x in columns]
            values = jax.device_get(self._run(tuple(wanted), *rows))
            count = len(rows[0])
            parts.append({n: x[:count, : kept[n]] if n in kept else x[:count] for n, x in values.items()})
        joined = {n: np.concatenate([part[n] for part in parts]) for n in wanted}
        return Outputs(*(joined.get(n) for n in Outputs._fields))

    def encode_text(self, texts: Iterable[str]) -> np.ndarray:
        """An embedding of each text, in their order, float32 [B, H]: the mean of the last hidden states of its tokens.

        [CLS] and [SEP] count as tokens; what is longer than the model's positions is cut. Texts of similar length
        share a batch, so little is spent on padding: give many at once. Raises DataError for what is no list of str.
        """
        if self.tokenizer is None:
            raise DataError("encode_text: this model came without a tokenizer that bertjax reads; call it on token ids")
        special, most = self.tokenizer.special, self.config.max_positions - 2
        ids_n, lengths = self.tokenizer.encode_batch(checked_texts("encode_text", texts))
        rows = [[special.cls, *ids[:most], special.sep] for ids in np.split(ids_n, np.cumsum(lengths))[:-1]]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        embeddings_BH = np.zeros((len(rows), self.config.hidden_size), np.float32)
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            tokens_BL, mask_BL = padded([rows[i] for i in chosen])
            means_BH = self._run(("mean",), tokens_BL, np.zeros_like(tokens_BL), mask_BL)["mean"]
            embeddings_BH[chosen] = np.asarray(means_BH)[: len(chosen)]
        return embeddings_BH

    def classify(
        self, texts: Iterable[str], pairs: Iterable[str] | None = None
    ) -> list[predict.Classified] | list[predict.Scored]:
        """The label of each text, or of it and its pair, with the probability of every label; of a model of regression,
        the number.

        In their order, as all that follows; texts of similar length share a batch, so give many at once. What is longer
        than the rows of the model's training, or its positions, is cut. Raises DataError for what is no list of str,
        and for a model without such a head.
        """
        return predict.classify(self, texts, pairs)

    def tag(self, texts: Iterable[str | Sequence[str]]) -> list[predict.Tagged]:
        """The tag of every word of each text, and the entities that they make.

        A text is split at white space; a list of words is taken as it is, and the places of its entities are those in
        the words with a space between two. What is longer than the model takes is read in parts; no word is lost.
        """
        return predict.tag(self, texts)

    def answer(
        self, questions: Iterable[str], contexts: Iterable[str], *, null_threshold: float | None = None
    ) -> list[predict.Answered]:
        """What each context says to its question: a part of it, however long it is.

        With `null_threshold`, a question has no answer where the score of that is more than this above the score of the
        best one; None: as the model was trained.
        """
        return predict.answer(self, questions, contexts, null_threshold)

    def choose(self, texts: Iterable[str], endings: Iterable[Sequence[str]]) -> list[predict.Chosen]:
        """The likeliest of the endings of each text, which may have two or more."""
        return predict.choose(self, texts, endings)

    def logits(self, output: str, examples: Sequence[Example]) -> list[np.ndarray]:
        """An output for each example, float32, in their order: [C], or [L, C] of as many tokens as it has."""
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens))
        found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(examples)
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            tokens_BL, mask_BL = padded([examples[i].tokens for i in chosen])
            types_BL, _ = padded([examples[i].token_types for i in chosen])
            values = np.asarray(self._run((output,), tokens_BL, types_BL, mask_BL)[output])
            for value, i in zip(values[: len(chosen)], chosen, strict=True):
                found[i] = value[: len(examples[i].tokens)] if output in PER_TOKEN else value
        return found

    def _run(
        self,
        wanted: tuple[str, ...],
        tokens_BL: np.ndarray,
        types_BL: np.ndarray,
        mask_BL: np.ndarray,
        at_BP: np.ndarray | None = None,
    ) -> dict[str, jax.Array]:
        B, L = tokens_BL.shape
        rows, length = _power_of_two(B), padded_length(L, self.config.max_positions)
        columns = [_grown(x, rows, length) for x in (tokens_BL, types_BL, mask_BL)]
        if at_BP is None:
            columns.append(np.tile(np.arange(length, dtype=np.int32), (rows, 1)))
        else:
            columns.append(_grown(at_BP, rows, _power_of_two(at_BP.shape[1])))
        return compiled()(self.config, self.compute, wanted, self.params, *columns)


def load(path: str | Path) -> Loaded:
    """The model in `path`: a work directory (its newest checkpoint) or a Hugging Face directory.

    It computes in the dtype of its training, which is float32 for Hugging Face directories. Raises ConfigError,
    CheckpointError or DataError for a directory that is neither, or damaged.
    """
    return on_device(load_trained(path))


def on_device(found: Trained) -> Loaded:
    """A trained model, its parameters put on the first device."""
    params = jax.device_put(found.params)
    return Loaded(found.config, found.compute, params, found.tokenizer, found.heads, found.task, found.seq_len)


def padded_length(length: int, most: int) -> int:
    """The length that a batch is padded to: a multiple of 16 up to 128, of 64 beyond, and at most `most`."""
    step = 16 if length <= 128 else 64
    return min(-(-length // step) * step, most)


def padded(rows: Sequence[Sequence[int] | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids as one array, int32 [B, L], and its mask: 1 for an id, 0 for the padding."""
    shape = (len(rows), max(map(len, rows)))
    tokens_BL, mask_BL = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for i, ids in enumerate(rows):
        tokens_BL[i, : len(ids)] = ids
        mask_BL[i, : len(ids)] = 1
    return tokens_BL, mask_BL


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


def _grown(x: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return np.pad(x, ((0, rows - x.shape[0]), (0, columns - x.shape[1])))


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()


CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""On CPU, Eigen's matrix products instead of YNNPACK's, which XLA takes otherwise: a fifth less time for BERT-base."""


@cache
def compiler_options() -> dict[str, str]:
    """Of what computes a trained model on this platform, for `jax.jit`."""
    options = CPU_OPTIONS if jax.default_backend() == "cpu" else {}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # a jaxlib without this option
        return {}
    return options


@cache
def compiled() -> Any:
    """`outputs_of`, jitted for this platform."""
    return jax.jit(outputs_of, static_argnums=(0, 1, 2), compiler_options=compiler_options())


def outputs_of(
    config: ModelConfig,
    compute: ComputeConfig,
    wanted: tuple[str, ...],
    params: Any,
    tokens_BL: jax.Array,
    types_BL: jax.Array,
    mask_BL: jax.Array,
    at_BP: jax.Array,
) -> dict[str, jax.Array]:
    """Those of `Outputs` and "mean", the hidden states averaged over the real tokens, [B, H]."""
    B, L = tokens_BL.shape
    positions_BL = jnp.broadcast_to(jnp.arange(L)[None, :], (B, L))
    batch = {"tokens": tokens_BL, "segments": mask_BL, "positions": positions_BL, "token_types": types_BL}
    batch |= {"mlm_positions": at_BP, "pair_positions": jnp.zeros((B, 1), jnp.int32)}
    values = apply(config, compute, params, batch)
    found: dict[str, jax.Array] = {name: values[name] for name in PER_TOKEN if name in values}
    found |= {name: values[name][:, 0] for name in PER_TEXT if name in values}
    real_BL = mask_BL.astype(jnp.float32)
    sums_BH = jnp.einsum("BLH,BL->BH", values["hidden"].astype(jnp.float32), real_BL)
    found["mean"] = sums_BH / jnp.maximum(real_BL.sum(axis=1), 1.0)[:, None]
    return {name: found[name].astype(jnp.float32) for name in wanted}
