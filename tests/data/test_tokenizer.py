"""Ids agree with the reference tokenizers, special pieces are where ALBERT has them, and bad files are named."""

import hashlib
import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizers
from bpe import ROBERTA, SIZE, TEXT, train_bpe
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data import tokenizer
from bertjax.errors import DataError
from bertjax.vocabulary.unigram import train_sentencepiece

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
HARD = ["Café  déjà-vu, 東京!\tnaïve\u0000 \u00a0x", "", "unaffable " + "q" * 150, "It’s £5 – “ok”… 2020, 1,000,"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("spm") / "spiece.model"
    train_sentencepiece(TEXT, path, vocab_size=45, lower_case=True)
    return path


@pytest.fixture
def wordpiece(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join([*SPECIALS, "un", "##aff", "##able", "mask", "[", "]", "cafe", ","]) + "\n")
    return path


def shared(*parts):
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"../shared/data/{'/'.join(parts)} is absent")
    return path


def encode(loaded, texts):
    """The ids of each text."""
    ids_n, lengths = loaded.encode_batch(texts)
    assert ids_n.dtype == np.int32 and len(lengths) == len(texts)
    return np.split(ids_n, np.cumsum(lengths)[:-1])


def test_sentencepiece_layout_is_alberts(model):
    loaded = tokenizer.load(model, lower_case=True)
    assert loaded.special == tokenizer.Special(pad=0, unk=1, cls=2, sep=3, mask=4)
    assert loaded.pieces[:13] == ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "(", ")", '"', "-", ".", "–", "£", "€"]
    assert loaded.vocab_size == len(loaded.pieces) == loaded.starts_word.size == 45
    assert loaded.digest == hashlib.sha256(model.read_bytes()).hexdigest()


def test_sentencepiece_round_trip(model):
    loaded = tokenizer.load(model, lower_case=True)
    encoded = encode(loaded, TEXT)
    assert [loaded.decode(ids) for ids in encoded] == [text.lower() for text in TEXT]
    assert encode(loaded, ["  THE\t kíng "])[0].tolist() == encode(loaded, ["the king"])[0].tolist()


def test_special_pieces_typed_in_text_are_text(model, wordpiece):
    for path in (model, wordpiece):
        loaded = tokenizer.load(path, lower_case=False)
        special = {loaded.special.cls, loaded.special.sep, loaded.special.mask, loaded.special.pad}
        assert not special & set(encode(loaded, ["[MASK] and [CLS] [SEP] [PAD] <pad>"])[0].tolist())


def test_bad_files_are_named(tmp_path, wordpiece):
    good = wordpiece.read_bytes()
    cases = {
        "no.model": None,
        "empty.model": b"",
        "bad.model": b"garbage" * 9,
        "x.vocab": b"{}",
        "latin.txt": b"\xe9\n",
    }
    cases |= {"blank.txt": b" \n", "nomask.txt": good.replace(b"[MASK]\n", b"")}
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name) as caught:
            tokenizer.load(tmp_path / name, lower_case=True)
        assert "\n" not in str(caught.value)
        assert ("is empty" in str(caught.value)) == (name in ("empty.model", "blank.txt"))


def test_a_word_table_smaller_than_the_tokenizer_is_refused(wordpiece):
    loaded = tokenizer.load(wordpiece, lower_case=True)
    tokenizer.check_vocabulary(loaded, 13)
    with pytest.raises(DataError, match=r"^model\.vocab_size = 12: smaller than the 13 pieces .* 13 or more$"):
        tokenizer.check_vocabulary(loaded, 12)


def test_wordpiece_splits_words_into_pieces(wordpiece):
    loaded = tokenizer.load(wordpiece, lower_case=True)
    ids = encode(loaded, ["Unaffable, café", "xyz"])
    assert [[loaded.pieces[index] for index in row] for row in ids] == [
        ["un", "##aff", "##able", ",", "cafe"],
        ["[UNK]"],
    ]
    assert loaded.decode(ids[0]).startswith("unaffable")
    assert [piece for piece, start in zip(loaded.pieces, loaded.starts_word, strict=True) if not start] == [
        "##aff",
        "##able",
    ]


@pytest.mark.parametrize(
    ("name", "lower_case"), [("bert_uncased.txt", True), ("bert_cased.txt", False), ("albert_30k_clean.model", True)]
)
def test_published_vocabularies_show_their_case(name, lower_case):
    assert tokenizer.load(shared("vocab", name), lower_case=None).lower_case == lower_case


@pytest.mark.parametrize("piece", ["A", "##A", "é", "##か\u3099"])
def test_pieces_that_an_uncased_text_cannot_use_make_it_cased(tmp_path, piece):
    """Not the special ones, which have capitals in any case; and what is asked for is done."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for pieces, lower_case in ((["a", "##a"], True), (["a", piece], False)):
        (tmp_path / "vocab.txt").write_text("\n".join(special + pieces), "utf-8")
        assert tokenizer.load(tmp_path / "vocab.txt", lower_case=None).lower_case == lower_case
        for asked in (True, False):
            assert tokenizer.load(tmp_path / "vocab.txt", lower_case=asked).lower_case == asked


@pytest.mark.parametrize(("name", "lower_case"), [("bert_uncased.txt", True), ("bert_cased.txt", False)])
def test_wordpiece_ids_equal_the_reference(name, lower_case):
    path = shared("vocab", name)
    reference = tokenizers.BertWordPieceTokenizer(str(path), lowercase=lower_case)
    texts = TEXT + HARD + real_lines()  # without special pieces, which the reference matches in text
    ours = encode(tokenizer.load(path, lower_case=lower_case), texts)
    assert [ids.tolist() for ids in ours] == [reference.encode(text, add_special_tokens=False).ids for text in texts]


def real_lines():
    """Lines of each corpus, of all kinds."""
    lines = shared("corpus", "bert_sample_text.txt").read_text("utf-8").split("\n")
    lines += shared("corpus", "wiki", "wiki_03").read_text("utf-8").split("\n")[:3000]
    for novel in sorted(shared("corpus", "novels").glob("*.txt"))[:3]:
        lines += novel.read_text("utf-8").split("\n")[:500]
    return lines


@given(st.text("aΣé\u0301\u0323\u00a8ﬁＡ각\u2028 \t.–İ"), st.booleans())
def test_normalisation_is_alberts(text, lower_case):
    """`preprocess_text` of google-research/albert, tokenization.py, without its quotation marks."""
    expected = unicodedata.normalize("NFKD", " ".join(text.split()))
    if lower_case:
        expected = "".join(c for c in expected if not unicodedata.combining(c)).lower()
    assert tokenizer.normalise(text, lower_case) == expected


def test_albert_ids_equal_sentencepiece():
    """Numbers with a comma aside, which ALBERT splits again."""
    path = shared("vocab", "albert_30k_clean.model")
    plain = sentencepiece.SentencePieceProcessor(model_file=str(path))
    texts = TEXT + HARD + real_lines()
    compared = 0
    for text, ids in zip(texts, encode(tokenizer.load(path, lower_case=True), texts), strict=True):
        folded = unicodedata.normalize("NFKD", " ".join(text.split()))
        folded = "".join(c for c in folded if not unicodedata.combining(c)).lower()
        pieces = plain.encode(folded, out_type=str)
        if not any(re.fullmatch(r".*\d,", piece) for piece in pieces):
            assert ids.tolist() == plain.encode(folded), text
            compared += 1
    assert compared > 0.8 * len(texts)


def test_albert_pieces():
    path = shared("vocab", "albert_30k_clean.model")
    loaded = tokenizer.load(path, lower_case=True)
    plain = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert plain.encode("in 2010, 1,000,", out_type=str)[:2] == ["▁in", "▁2010,"]
    ours, other = encode(loaded, ["in 2010, 1,000,", "no digits, here"])
    assert [loaded.pieces[index] for index in ours] == ["▁in", "▁2010", ",", "▁1,000", ","]
    assert other.tolist() == plain.encode("no digits, here")
    words = {"▁the": True, "s": False, ".": True, "2": True, "[CLS]": False, "<unk>": True, "ing": False}
    assert {piece: bool(loaded.starts_word[plain.piece_to_id(piece)]) for piece in words} == words


def places(loaded, text):
    """Each token with the characters of the text that it stands for."""
    ids_n, lengths, places_n2 = loaded.encode_places(["and", text, ""])
    ids, same = loaded.encode_batch(["and", text, ""])
    assert ids_n.tolist() == ids.tolist() and lengths.tolist() == same.tolist() and places_n2.dtype == np.int32
    first = lengths[0]
    return [(loaded.pieces[i], text[a:b]) for i, (a, b) in zip(ids_n[first:], places_n2[first:], strict=True)]


def test_tokens_know_their_places_in_the_text(tmp_path):
    """What is dropped has none, and what becomes longer has one place together."""
    uncased = tokenizer.load(shared("vocab", "bert_uncased.txt"), lower_case=None)
    text = "\u0301 Caf\u00e9s\t\u6771½ \ufb01ne"
    assert places(uncased, text)[:3] == [("cafes", "Cafés"), ("東", "東"), ("½", "½")]
    bpe = tokenizer.load(train_bpe(tmp_path / "tokenizer.json"), lower_case=True)
    assert places(bpe, "The kingñ")[1:] == [("Ġking", "king"), ("Ã", "ñ"), ("±", "ñ")]
    albert = tokenizer.load(shared("vocab", "albert_30k_clean.model"), lower_case=None)
    found = places(albert, "\u0301 In  \uff12010, 1,000, \ufb01ne \u0130s")
    assert found == [
        ("▁in", "In"),
        ("▁2010", " ２010"),
        (",", ","),
        ("▁1,000", " 1,000"),
        (",", ","),
        ("▁fine", " ﬁne"),
        ("▁is", " İs"),
    ]


# Byte-level BPE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("specials", [ROBERTA, ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]])
def test_bpe_is_what_its_file_says(specials, tmp_path):
    path = train_bpe(tmp_path / "tokenizer.json", specials=specials)
    loaded = tokenizer.load(path, lower_case=True)
    assert loaded.special == tokenizer.Special(pad=1, unk=3, cls=0, sep=2, mask=4)
    assert loaded.vocab_size == len(loaded.pieces) == loaded.starts_word.size == SIZE
    assert loaded.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    texts = [*TEXT, *HARD, "The kingThe", " The", "\n\u2028x", "😀 naïve"]
    encoded = encode(loaded, texts)
    assert [loaded.decode(ids) for ids in encoded] == texts  # case and all bytes included, nothing cut or padded
    assert max(len(ids) for ids in encoded) > 40 and len(encode(loaded, [""])[0]) == 0
    (ids,) = encode(loaded, ["The king of the"])
    assert [loaded.pieces[i] for i in ids][-3:] == ["Ġking", "Ġof", "Ġthe"]
    words = {"Ġthe": True, "Ġ": True, "e": False, "in": False, ".": False, specials[0]: False}
    assert {piece: bool(loaded.starts_word[loaded.pieces.index(piece)]) for piece in words} == words


def test_bpe_special_pieces_typed_in_text_are_text(tmp_path):
    """Also where the file does not call them special, or not at all."""
    path = train_bpe(tmp_path / "tokenizer.json")
    for change in ({}, {"special": False}, None):
        values = json.loads(path.read_text())
        values["added_tokens"] = [] if change is None else [token | change for token in values["added_tokens"]]
        path.write_text(json.dumps(values))
        loaded = tokenizer.load(path, lower_case=False)
        text = "a <mask> b</s><s> <pad>"
        (ids,) = encode(loaded, [text])
        assert min(ids) > 4 and loaded.decode(ids) == text and loaded.vocab_size == SIZE


def test_bpe_normalises_as_its_file_says(tmp_path):
    """`lower_case` means nothing to it."""
    lower = tokenizers.normalizers.Lowercase()
    path = train_bpe(tmp_path / "tokenizer.json", prefix_space=True, normalizer=lower)
    for lower_case in (True, False):
        loaded = tokenizer.load(path, lower_case=lower_case)
        (ids,) = encode(loaded, ["The KING"])
        assert [loaded.pieces[i] for i in ids] == ["Ġthe", "Ġking"]


def test_bpe_spellings_are_text(tmp_path):
    loaded = tokenizer.load(train_bpe(tmp_path / "tokenizer.json"), lower_case=True)
    assert {" the", " king", "e", "<mask>"} <= set(loaded.spellings)
    assert loaded.spellings[loaded.pieces.index("Ã")] == "Ã"  # the first byte of "é"
    assert len(set(loaded.spellings)) == loaded.vocab_size


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": {"type": "WordLevel", "unk_token": "<none>"}}, "its model.unk_token is not in its vocabulary"),
        ({"model": {"type": "Unigram"}}, "its model.unk_id is missing"),
        ({"model": {"type": "Unigram", "unk_id": 0}}, "expected a sequence"),
        ({"model": {"type": "WordPiece", "unk_token": "<none>"}}, "its model.unk_token is not in its vocabulary"),
        ({"model": {"dropout": 0.1}}, "model.dropout is set"),
        ({"model": {"continuing_subword_prefix": "Ġ"}}, "continuing_subword_prefix is set"),  # the library would panic
        ({"model": {"end_of_word_suffix": "</w>"}}, "end_of_word_suffix is set"),
        ({"model": {"merges": [["Ġ", "nothing"]]}}, "out of vocabulary"),
        ({"model": {"vocab": {"<s>": 0, "a": 2}, "merges": []}, "added_tokens": []}, "no piece with id 1"),
        ({"model": {"vocab": {"<s>": 1, "a": 0}, "merges": []}}, "its added token '<s>' has the id 0, and is 1"),
        ({"model": {"vocab": {"<s>": 0, "a": 1}, "merges": []}, "added_tokens": []}, "has no piece <pad> or [PAD]"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "split by Whitespace"),
        ({"pre_tokenizer": None}, "split by none"),
        ({"model": None}, "Unigram or byte-level BPE of the tokenizers"),
        ({"version": "9"}, "Unigram or byte-level BPE of the tokenizers"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_another_json_is_refused(change, text, tmp_path):
    path = train_bpe(tmp_path / "tokenizer.json")
    values = json.loads(path.read_text())
    for name, value in change.items():
        values[name] = values[name] | value if isinstance(value, dict) and name == "model" else value
    path.write_text(json.dumps(values))
    with pytest.raises(DataError) as caught:
        tokenizer.load(path, lower_case=True)
    (line,) = str(caught.value).splitlines()
    assert str(path) in line and text in line and len(line) < 400 + len(str(path))


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"{}", b"3", b"\xff{}", b'{"model": 1}'])
def test_json_that_is_no_tokenizer_is_refused(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="Unigram or byte-level BPE of the tokenizers") as caught:
        tokenizer.load(path, lower_case=True)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("prefix_space", [False, True])
def test_bpe_ids_equal_transformers(prefix_space, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the [hf] extra is not installed")
    path = train_bpe(tmp_path / "tokenizer.json", prefix_space=prefix_space)
    peer = transformers.RobertaTokenizerFast.from_pretrained(tmp_path, add_prefix_space=prefix_space)
    loaded = tokenizer.load(path, lower_case=True)
    texts = TEXT + HARD
    expected = [peer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert [ids.tolist() for ids in encode(loaded, texts)] == expected
