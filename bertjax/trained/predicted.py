"""What a model says of records, gathered from its outputs on batches of their examples.

Shape letters: B rows, L positions of a row, K examples of a row, C labels, N tokens of an example, R records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bertjax.config.task_fields import TaskConfig
from bertjax.errors import NumericError
from bertjax.labelled.entities import OUTSIDE
from bertjax.labelled.records import Record
from bertjax.trained import answers
from bertjax.trained.answers import Answered, Window


class Example(Protocol):
    """What is read of an example (`bertjax.labelled.encode`)."""

    @property
    def record(self) -> int:
        """The index of its record."""

    @property
    def tokens(self) -> np.ndarray:
        """[N]."""

    @property
    def words(self) -> np.ndarray:
        """[N]. tag: the index of the word that a token is of; -1 for other tokens."""

    @property
    def offsets(self) -> np.ndarray:
        """[N, 2]. span: the characters of the context that a token is; -1 for other tokens."""

    @property
    def max_context(self) -> np.ndarray:
        """[N]. span: whether no other window has more context around the token."""


@dataclass(frozen=True)
class Predicted:
    """What a model says of one record."""

    value: str | float | tuple[str, ...]
    """classify: the label. regress: the number. tag: the tag of each word. span: the text, "" = there is no answer.
    choice: which ending, from "0"."""
    scores: dict[str, float] | tuple[float, ...] = ()
    """Probabilities. classify, choice: of each label or ending. tag: of the tag of each word. span: of each text."""
    answered: Answered | None = None
    """span: all that is known of the answer."""


class Predictions:
    """Takes the outputs on batches, in any order, and gives a prediction for each record."""

    def __init__(
        self,
        task: TaskConfig,
        labels: Sequence[str],
        records: Sequence[Record],
        examples: Sequence[Example],
        *,
        null: bool,
    ) -> None:
        """`null`: whether a question may have no answer."""
        self._task, self._labels, self._records, self._examples, self._null = task, labels, records, examples, null
        self._found: dict[int, Predicted] = {}
        self._windows: dict[int, dict[int, Window]] = {}  # record -> example -> what it says
        self._tags: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # record -> labels and probabilities of its words

    def add(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Take the outputs of the heads on a batch (`bertjax.batch.labelled`). Raises NumericError for NaN in them."""
        head = {"tag": "tag_logits", "span": "span_logits"}.get(self._task.kind, "class_logits")
        logits = np.asarray(outputs[head], np.float64)
        for row, k in np.argwhere(batch["numbers"] >= 0).tolist():
            number = int(batch["numbers"][row, k])
            example = self._examples[number]
            if self._task.kind == "choice":
                found = logits[row, :, 0]
            elif self._task.kind in ("tag", "span"):
                start = batch["pair_positions"][row, k]
                found = logits[row, start : start + len(example.tokens)]
            else:
                found = logits[row, k]
            if not np.isfinite(found).all():
                place = self._records[example.record].place
                raise NumericError(f"{place}: what the model says of it is no number; lower optim.lr, or load another")
            self._take(number, example, found)

    def _take(self, number: int, example: Example, logits: np.ndarray) -> None:
        record, kind = example.record, self._task.kind
        if kind == "span":
            context = self._records[record].texts[1]
            said = answers.window(context, logits, example.offsets, example.max_context, self._task)
            self._windows.setdefault(record, {})[number] = said
        elif kind == "tag":
            self._tag(record, example.words, logits)
        elif kind == "regress":
            self._found[record] = Predicted(float(logits[0]))
        else:
            names = self._labels if kind == "classify" else [str(i) for i in range(len(logits))]
            scores = dict(zip(names, softmax(logits).tolist(), strict=True))
            self._found[record] = Predicted(names[int(np.argmax(logits))], scores)

    def _tag(self, record: int, words_N: np.ndarray, logits_NC: np.ndarray) -> None:
        """A word has the tag of its first piece."""
        first_N = (words_N >= 0) & (words_N != np.concatenate(([-1], words_N[:-1])))
        probabilities = softmax(logits_NC[first_N])
        if record not in self._tags:
            count = len(self._records[record].texts)
            self._tags[record] = np.full(count, -1), np.ones(count)
        tags, shares = self._tags[record]
        tags[words_N[first_N]], shares[words_N[first_N]] = probabilities.argmax(axis=1), probabilities.max(axis=1)

    def done(self) -> list[Predicted]:
        """The predictions in the order of the records, each of which must have been in the batches if it has a word.

        A word that no token stands for is in no entity.
        """
        names = [*self._labels, OUTSIDE]  # the last one is what -1 stands for
        for record, (tags, shares) in self._tags.items():
            self._found[record] = Predicted(tuple(names[tag] for tag in tags.tolist()), tuple(shares.tolist()))
        if self._task.kind == "tag":
            wordless = [number for number, record in enumerate(self._records) if not record.texts]
            self._found |= dict.fromkeys(wordless, Predicted(()))
        for record, windows in self._windows.items():
            said = answers.answer((windows[number] for number in sorted(windows)), self._task, null=self._null)
            scores = {one.text: share for one, share in zip(said.candidates, said.probabilities, strict=True)}
            self._found[record] = Predicted(said.text, scores, said)
        return [self._found[record] for record in range(len(self._records))]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
