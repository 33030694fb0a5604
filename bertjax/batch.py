"""The batch contract: what one global batch holds, by name, shape, dtype and meaning.

A row is one sequence of static length L that holds up to K examples; K = 1 is the classic, unpacked row. The host
builds batches to this contract, the model and the objectives read nothing else, and benchmarks make synthetic ones.

Shape letters: B rows, L positions of a row, P prediction slots of a row, K examples of a row.
"""

from dataclasses import dataclass

import numpy as np

from bertjax.config.schema import DataConfig


@dataclass(frozen=True)
class Field:
    """One entry of a batch: its `shape`, its numpy `dtype` and what it means."""

    shape: tuple[int, ...]
    dtype: type
    meaning: str


def spec(data: DataConfig, *, rows: int | None = None, length: int | None = None) -> dict[str, Field]:
    """The fields of a batch of `rows` rows (default: `data.batch_size`) of `length` (default: `data.seq_len`)."""
    B = data.batch_size if rows is None else rows
    L = data.seq_len if length is None else length
    P, K = data.max_predictions, data.packing
    return {
        "tokens": Field((B, L), np.int32, "token ids after masking; the padding id in unused positions"),
        "segments": Field((B, L), np.int32, "which example of the row, 1..K; 0 is padding"),
        "positions": Field((B, L), np.int32, "position inside the example, from 0"),
        "token_types": Field((B, L), np.int32, "0 for segment A, 1 for segment B"),
        "mlm_positions": Field((B, P), np.int32, "row positions whose token is to be predicted"),
        "mlm_labels": Field((B, P), np.int32, "the original token at each of them"),
        "mlm_weights": Field((B, P), np.float32, "1 for a predicted slot, 0 for an unused one"),
        "pair_positions": Field((B, K), np.int32, "row position of the [CLS] of each example"),
        "pair_labels": Field((B, K), np.int32, "NSP: 1 = random next; SOP: 1 = swapped"),
        "pair_weights": Field((B, K), np.float32, "1 where the example has a pair label, else 0"),
    }
