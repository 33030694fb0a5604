"""How likely a masked language model finds whole sentences: a number for each, to compare sentences by. Two methods:

pll       the sum over the tokens of log p(token | all others), each behind [MASK] in its turn; special tokens are read
          and not scored: pseudo-log-likelihood (arXiv:1910.14659)
unmasked  minus the mean cross-entropy of all tokens, special ones too, in one pass that shows them all: as the authors
          of Zorro score it

Shape letters: S sentences, R rows to compute, B rows of a batch, L positions of a row, P slots of a row.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bertjax.config.schema import ComputeConfig, ModelConfig
from bertjax.data.tokenizer import Special
from bertjax.model import network
from bertjax.parallel import sharding
from bertjax.train.step import Forward, JittedStep
from bertjax.trained import inference

TOKENS = {"cpu": 2**11}
MOST_TOKENS = 2**15
"""Of a batch, on each device: enough to keep it busy. More would only make the bar move seldom."""
LOGITS = 2**25
"""Most logits of a batch, on each device: 128 MiB."""


@dataclass(frozen=True)
class Group:
    """Sentences that are padded to the same length, and the rows by which they are scored."""

    sentence_S: np.ndarray  # which of all sentences
    tokens_SL: np.ndarray
    real_SL: np.ndarray  # 1 for a token, 0 for padding
    of_R: np.ndarray  # the row scores a part of this one of the group
    at_RP: np.ndarray  # at these positions
    weight_RP: np.ndarray  # each counted so much
    size: int  # rows of a batch

    @property
    def work(self) -> int:
        """Tokens to compute, padding included."""
        return len(self.of_R) * self.tokens_SL.shape[1]


@dataclass(frozen=True)
class Plan:
    """Sentences in groups: all that can be known before there is a model. Each group compiles once."""

    count: int
    groups: list[Group]
    hidden: int  # the id that hides a scored token; -1 = none does

    @property
    def work(self) -> int:
        """Tokens to compute, padding included."""
        return sum(group.work for group in self.groups)


def plan(sentences: Sequence[Sequence[int]], model: ModelConfig, special: Special, mesh: Mesh, *, by: str) -> Plan:
    """How to score sentences, given as ids without special tokens, by pll or unmasked; none longer than the
    positions of the model, its two special tokens included.
    """
    rows = [[special.cls, *ids, special.sep] for ids in sentences]
    padded_S = np.array([inference.padded_length(len(ids), model.max_positions) for ids in rows], int)
    tokens = TOKENS.get(mesh.devices.flat[0].platform, MOST_TOKENS)
    groups = []
    for length in np.unique(padded_S):
        sentence_S = np.flatnonzero(padded_S == length)
        tokens_SL, real_SL = (np.zeros((len(sentence_S), length), np.int32) for _ in range(2))
        for s, i in enumerate(sentence_S):
            tokens_SL[s, : len(rows[i])] = rows[i]
            real_SL[s, : len(rows[i])] = 1
        count_S1 = real_SL.sum(axis=1, keepdims=True)
        if by == "pll":
            place_1L = np.arange(length)[None, :]
            of_R, at_R = np.nonzero((place_1L > 0) & (place_1L < count_S1 - 1))
            at_RP, weight_RP = at_R[:, None], np.ones((len(at_R), 1))
        else:
            of_R, at_RP = np.arange(len(sentence_S)), np.tile(np.arange(length), (len(sentence_S), 1))
            weight_RP = real_SL / count_S1
        most = min(tokens // length, LOGITS // (at_RP.shape[1] * model.vocab_size))
        size = _rows(most, len(of_R), sharding.row_ways(mesh))
        groups.append(
            Group(sentence_S, tokens_SL, real_SL, of_R, at_RP.astype(np.int32), weight_RP.astype(np.float32), size)
        )
    return Plan(len(rows), groups, special.mask if by == "pll" else -1)


def _rows(most: int, needed: int, ways: int) -> int:
    """Rows of a batch over so many devices: at most so many on each, and not twice as many as are needed in all."""
    each = 1
    while 2 * each <= most and each * ways < needed:
        each *= 2
    return each * ways


def scorer(
    model: ModelConfig, compute: ComputeConfig, mesh: Mesh
) -> Callable[[Any, Plan, Callable[[int], None]], np.ndarray]:
    """The function (parameters on the mesh, plan, advance) -> scores [S], float64; larger = likelier.

    It calls `advance` with the tokens that have been computed.
    """
    forward = jax.tree_util.Partial(partial(network.apply, model, compute, heads=("mlm_head",)))
    return partial(scores, row_scorer(forward, mesh), mesh)


def row_scorer(forward: Forward, mesh: Mesh) -> JittedStep:
    """The jitted step (params, batch) -> the sum of weighted log-probabilities of each row, [B]; of the logits, which
    are hundreds of times as large, nothing leaves the device.
    """

    def row_scores(params: Any, forward: Forward, batch: dict[str, jax.Array]) -> jax.Array:
        logits_BPV = forward(params, batch, None)["mlm_logits"]
        label_BP1 = batch["mlm_labels"][..., None]
        chosen_BP = jnp.take_along_axis(logits_BPV, label_BP1, axis=-1)[..., 0]
        log_probs_BP = chosen_BP - jax.nn.logsumexp(logits_BPV, axis=-1)
        return jnp.sum(batch["mlm_weights"] * log_probs_BP, axis=-1)

    options = inference.compiler_options()
    return JittedStep(row_scores, forward, mesh, out=lambda _: sharding.replicated(mesh), compiler_options=options)


def scores(
    step: Callable[[Any, Any], jax.Array], mesh: Mesh, params: Any, plan: Plan, advance: Callable[[int], None]
) -> np.ndarray:
    """The scores [S] of a plan by a step of `row_scorer`."""
    found_S = np.zeros(plan.count)
    ahead: deque[tuple[np.ndarray, int, jax.Array]] = deque()

    def take() -> None:
        sentence_B, work, score_B = ahead.popleft()
        np.add.at(found_S, sentence_B, np.asarray(score_B, np.float64)[: len(sentence_B)])
        advance(work)

    for sentence_B, work, batch in (each for group in plan.groups for each in _batches(group, plan.hidden)):
        ahead.append((sentence_B, work, step(params, sharding.put_batch(batch, mesh))))
        if len(ahead) > 1:  # read one late, so that the device has the next batch by then
            take()
    while ahead:
        take()
    return found_S


def _batches(group: Group, hidden: int) -> Iterator[tuple[np.ndarray, int, dict[str, np.ndarray]]]:
    """Sentences of the rows, tokens to compute, batch; the last is filled up with rows of no sentence."""
    length = group.tokens_SL.shape[1]
    for start in range(0, len(group.of_R), group.size):
        row_B = np.arange(start, start + group.size).clip(max=len(group.of_R) - 1)
        used = min(group.size, len(group.of_R) - start)
        of_B, at_BP = group.of_R[row_B], group.at_RP[row_B]
        tokens_BL = group.tokens_SL[of_B]
        labels_BP = np.take_along_axis(tokens_BL, at_BP, axis=1)
        if hidden >= 0:
            np.put_along_axis(tokens_BL, at_BP, hidden, axis=1)
        yield (
            group.sentence_S[of_B[:used]],
            used * length,
            {
                "tokens": tokens_BL,
                "segments": group.real_SL[of_B],
                "positions": np.tile(np.arange(length, dtype=np.int32), (group.size, 1)),
                "token_types": np.zeros_like(tokens_BL),
                "mlm_positions": at_BP,
                "mlm_labels": labels_BP,
                "mlm_weights": group.weight_RP[row_B],
            },
        )
