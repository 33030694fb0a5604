"""Pairs as the released builders of BERT and ALBERT make them, with what is wrong in them (`data.original_flaws`).

For repeating published results; `bertjax.data.examples` has the better rules. After the rules of BERT's and ALBERT's
`create_pretraining_data.py`. Sentences are added to a chunk until its target length or the document's end is reached,
and the chunk is cut after some of its sentences into A and B. The flaws, all of them kept:

- The shorter target length is drawn once for each document, not for each example.
- A chunk of one sentence gets its B from a random document and label 1, in sop too. So label 1 is more frequent than
  label 0 (always, in documents of one sentence each), and sop's order is in part told by the topic.
- nsp: the sentences that a random B displaced go back, and the next chunk begins with them. So how many examples an
  epoch has depends on the draws, and the sentences of random Bs are used twice.
- The random document is drawn up to 10 times to differ from A's, and may be A's own after that: in a corpus of one
  document it always is, and a B that even follows A, or is A, has label 1.
- A random B is filled up to the target even where the true pair, at its document's end, is shorter: length tells a
  little about the label.
- A sentence is never cut: of one longer than a row, the pair's truncation leaves one row's worth, and the rest is lost.
- Stretches and labels are drawn once, from the seed. The originals write some copies of the corpus with other draws
  and then repeat them; here every epoch has the same ones, and only truncation and masks are new in each.

Shape letters: S sentences, D documents, N examples.
"""

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from random import Random

import numpy as np

from bertjax.config.schema import DataConfig

_TRIES = 10  # draws of a random document that may fall on A's own


@dataclass(frozen=True)
class Fixed:
    """Examples whose segments and labels are decided."""

    lengths_N: np.ndarray  # int32 [N] positions of a row that each takes
    segments_N5: np.ndarray  # int64 [N, 5] first token of A, its end, the same of B, the label
    longest: int  # tokens of A and B together

    def __len__(self) -> int:
        return len(self.lengths_N)

    def segments(self, index: int, rng: np.random.Generator) -> tuple[int, int, int, int, int]:
        """First token of A, its end, the same of B, and the label. Nothing is drawn from `rng`."""
        a, a_end, b, b_end, label = self.segments_N5[index].tolist()
        return a, a_end, b, b_end, label


def plan(document_offsets: np.ndarray, sentence_lengths: np.ndarray, data: DataConfig, *, seed: int) -> Fixed:
    """The examples of a split, from where its documents begin (int64 [D + 1]) in its sentences' lengths ([S], >= 1).

    A loop in Python over examples and documents: about 7 seconds and 100 MB a million examples.
    """
    rng = Random(seed)
    longest = data.seq_len - 3
    starts_S1 = np.concatenate(([0], np.cumsum(sentence_lengths, dtype=np.int64)))
    offsets = document_offsets.tolist()
    documents = list(range(len(offsets) - 1))
    rng.shuffle(documents)
    segments = array("q")
    for document in documents:
        target = rng.randint(2, longest) if rng.random() < data.short_seq_prob else longest
        starts = starts_S1[offsets[document] : offsets[document + 1] + 1].tolist()
        first, sentences = 0, len(starts) - 1
        while first < sentences:
            end = min(bisect_left(starts, starts[first] + target), sentences)
            middle = first + 1 if end - first == 1 else rng.randint(first + 1, end - 1)
            a, b = (starts[first], starts[middle]), (starts[middle], starts[end])
            label = 1
            if end - first == 1 or (data.examples == "nsp" and rng.random() < 0.5):
                b = _random_next(starts_S1, offsets, document, target - (a[1] - a[0]), rng)
                end = middle
            elif data.examples == "sop" and rng.random() < 0.5:
                a, b = b, a
            else:
                label = 0
            segments.extend((*a, *b, label))
            first = end
    segments_N5 = np.array(segments, np.int64).reshape(-1, 5)
    total_N = segments_N5[:, 1] - segments_N5[:, 0] + segments_N5[:, 3] - segments_N5[:, 2]
    return Fixed((np.minimum(total_N, longest) + 3).astype(np.int32), segments_N5, longest)


def _random_next(starts_S1: np.ndarray, offsets: list[int], own: int, size: int, rng: Random) -> tuple[int, int]:
    """First token and end of a B: sentences of a random document from a random one on, at least one, until `size`."""
    for _ in range(_TRIES):
        other = rng.randrange(len(offsets) - 1)
        if other != own:
            break
    first = rng.randrange(offsets[other], offsets[other + 1])
    begin = int(starts_S1[first])
    last = int(starts_S1.searchsorted(begin + max(size, 1)))
    return begin, int(starts_S1[min(last, offsets[other + 1])])
