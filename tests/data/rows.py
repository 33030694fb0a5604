"""A small data set whose every token tells where it is, and the rows of streams of it."""

from types import SimpleNamespace

import numpy as np

from bertjax.config.schema import DataConfig
from bertjax.data.loader import train_batches
from bertjax.data.order import epoch_rows

DATA = DataConfig(batch_size=8, seq_len=32, max_predictions=5, examples="sop", loader_threads=2)
SPECIAL = SimpleNamespace(pad=9, unk=1, cls=2, sep=3, mask=4)
VOCAB = 3_000
TOKENIZER = SimpleNamespace(vocab_size=VOCAB, special=SPECIAL, digest="ab" * 32, starts_word=np.arange(VOCAB) % 3 > 0)
EXAMPLES = ["nsp", "sop", "full_sentences", "doc_sentences"]


def make_split(documents, *, start, name="train"):
    """Documents of 7 sentences of 5 tokens; every token of the split is another id, from `start` on."""
    return SimpleNamespace(
        name=name,
        document_offsets=np.arange(documents + 1) * 7,
        sentence_lengths=np.full(documents * 7, 5, np.int32),
        tokens=lambda a, b: np.arange(start + a, start + b, dtype=np.int32),
        source_documents=(documents // 3, documents - documents // 3),
    )


PREPARED = SimpleNamespace(
    directory=None,
    token_counts=np.ones(VOCAB, np.int64),
    vocab_size=VOCAB,
    tokenizer_digest=TOKENIZER.digest,
    train=make_split(21, start=10),
    validation=make_split(11, start=1_000, name="validation"),
)
N = epoch_rows(DATA, PREPARED.train, seed=0)


def config(**fields):
    return DataConfig(**{**vars(DATA), **fields})


def rows_of(iterator, count):
    """The first `count` rows of a stream of batches, field by field."""
    batches, rows = [], 0
    while rows < count:
        batches.append(next(iterator))
        rows += len(batches[-1]["tokens"])
    iterator.close()
    return {name: np.concatenate([b[name] for b in batches])[:count] for name in batches[0]}


def train_rows(count, *, data=DATA, seed=0, start_row=0, **run):
    return rows_of(train_batches(data, PREPARED, TOKENIZER, seed=seed, start_row=start_row, **run), count)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def originals(rows):
    """The rows' tokens with the masks undone [rows, L]."""
    tokens_BL = rows["tokens"].copy()
    for tokens_L, positions_P, labels_P, weights_P in zip(
        tokens_BL, rows["mlm_positions"], rows["mlm_labels"], rows["mlm_weights"], strict=True
    ):
        chosen_P = weights_P > 0
        tokens_L[positions_P[chosen_P]] = labels_P[chosen_P]
    return tokens_BL


def example_keys(rows):
    """The first sentence of each row's example: names the example, whatever its cut, swap, truncation and masks."""
    tokens_BL = originals(rows)
    return np.where(tokens_BL >= 10, tokens_BL, VOCAB).min(axis=1) // 5


def packed_keys(rows):
    """As `example_keys` for each example of rows that hold several, one list for all rows."""
    keys = []
    for tokens_L, segments_L in zip(originals(rows), rows["segments"], strict=True):
        texts = [tokens_L[(segments_L == k) & (tokens_L >= 10)] for k in range(1, segments_L.max() + 1)]
        keys += [int(tokens.min()) // 5 for tokens in texts]
    return keys
