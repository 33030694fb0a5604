"""Examples are spelled as they were, with what was predicted."""

import numpy as np
from reported import PIECES, change, rows_of, told

from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.report.spelled import parts
from bertjax.vocabulary.unigram import train_sentencepiece


def test_examples_are_spelled_as_they_were(clean):
    made = change(clean, packing=4, seq_len=64, batch_size=2)
    rows, shown = rows_of(made, rows=50), told(made, rows=50, shown=20)["shown"]
    assert len(shown) == 20
    expected = [(number, k) for number, row in enumerate(rows) for k in range(row["segments"].max())]
    for (number, k), example in zip(expected, shown, strict=False):
        row = rows[number]
        original = row["tokens"].copy()
        real = row["mlm_weights"] > 0
        original[row["mlm_positions"][real]] = row["mlm_labels"][real]
        inside = np.flatnonzero(row["segments"] == k + 1)
        pieces = "".join(PIECES[token].removeprefix("##") for token in original[inside])
        marks = [(before, after) for before, after in example["parts"] if after is not None]
        changes = [(PIECES[original[i]], PIECES[row["tokens"][i]]) for i in inside if i in row["mlm_positions"][real]]
        assert "".join(before for before, _ in example["parts"]).replace(" ", "") == pieces
        assert marks == changes and all(f"{{{before}→{after}}}" in example["text"] for before, after in marks)
        labels = ("true next", "random next")
        label = labels[row["pair_labels"][k]] if row["pair_weights"][k] else "no label"
        assert (example["row"], example["label"]) == (number, label)


def test_parts_of_words_are_joined(tmp_path, clean):
    wordpiece = clean[2]
    ids = np.array([PIECES.index(piece) for piece in ("[CLS]", "w1", "##s", "w2", ".", "[SEP]", "##s", "[UNK]")])
    labels = np.full(len(ids), -1)
    labels[2], ids[2] = ids[2], PIECES.index("[MASK]")
    labels[4] = ids[4]
    found = list(parts(ids, labels, wordpiece))
    text = "".join(before if after is None else f"{{{before}→{after}}}" for before, after in found)
    assert text == "[CLS] w1{s→[MASK]} w2 {.→.} [SEP] ##s [UNK]"
    path = tmp_path / "spiece.model"
    train_sentencepiece(["ab abc abcd bcd " * 9] * 9, path, vocab_size=22, lower_case=True)
    pieces = load_tokenizer(path, lower_case=True)
    (ids, _) = pieces.encode_batch(["abc abcd x"])
    tokens = np.concatenate(([pieces.special.cls], ids, [pieces.special.sep]))
    spelled = "".join(before for before, _ in parts(tokens, np.full(len(tokens), -1), pieces))
    assert spelled.split() == ["[CLS]", "abc", "abcd", "<unk>", "[SEP]"]
