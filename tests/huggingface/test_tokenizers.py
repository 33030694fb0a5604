"""The tokenizer that goes with an export gives the ids that bertjax trained on, in tokenizers and in transformers."""

import dataclasses
import functools
import importlib.util
import json
import random

import jax
import numpy as np
import pytest
import tokenizers
from bpe import TEXT, train_bpe
from directories import assert_same, hf, model_of, ours, shared, write

from bertjax.data import tokenizer
from bertjax.errors import DataError
from bertjax.huggingface.directory import read
from bertjax.model.network import abstract_params
from bertjax.vocabulary.unigram import train_sentencepiece
from bertjax.vocabulary.wordpiece import train_wordpiece

HARD = [
    "Café  déjà-vu, 東京!\tnaïve\u0000 \u00a0x",
    "",
    "   ",
    "unaffable " + "q" * 150,
    "It’s £5 – “ok”… 2020, 1,000,",
    "``quoted'' text (here) - e.g. -1.5",
    "हिन्दी में लिखा है",
    "ΑΣ Σίσυφος İstanbul ǅ",
    "a\x1cb\u200bc\u2028d",
    "ﬁne １２３ ½ …",
    "▁under ▁",
    "x\u0301y\u0308 e\u0323\u0302",
    "한국어 テスト ｶﾞ",
]


def model_for(loaded, kind="bert"):
    """A model of one narrow layer with this vocabulary, and parameters of zeros."""
    sizes = {"vocab_size": loaded.vocab_size, "num_layers": 1, "hidden_size": 4, "embedding_size": 4, "num_heads": 1}
    config = dataclasses.replace(model_of(kind), **sizes)
    return {"config": config, "params": jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_params(config))}


def ids_of(loaded, texts):
    ids, lengths = loaded.encode_batch(texts)
    return [x.tolist() for x in np.split(ids, np.cumsum(lengths)[:-1])]


def assert_the_same(found, loaded, lines):
    """A tokenizer.json is read as what it was made of."""
    assert ids_of(found, lines) == ids_of(loaded, lines)
    assert (found.pieces, found.special, found.spellings) == (loaded.pieces, loaded.special, loaded.spellings)
    np.testing.assert_array_equal(found.starts_word, loaded.starts_word)


@functools.cache
def sample():
    """Lines of articles, a novel and a speech."""
    lines = []
    for part in ("wiki/wiki_03", "novels/ENG18900_Doyle.txt", "speeches/inaugural/1861-Lincoln.txt"):
        path = shared("corpus", *part.split("/"))
        lines += [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return random.Random(0).sample(lines, 400)


@pytest.mark.parametrize(
    ("file", "lower_case", "kind"),
    [
        ("bert_uncased.txt", True, "bert"),
        ("bert_cased.txt", False, "distilbert"),
        ("albert_30k_clean.model", True, "albert_nothing_shared"),
        ("albert_30k_clean.model", False, "roberta"),
    ],
)
def test_exported_tokenizers_give_the_same_ids(file, lower_case, kind, tmp_path):
    """On lines of text and on hard ones; `bertjax.huggingface.tokenizers` names the rare lines where they differ."""
    source = shared("vocab", file)
    loaded = tokenizer.load(source, lower_case=lower_case)
    directory = write(tmp_path / "model", **model_for(loaded, kind), tokenizer=source, lower_case=lower_case)
    contents = read(directory)
    assert (contents.tokenizer.read_bytes(), contents.lower_case) == (source.read_bytes(), lower_case)
    lines = sample() + HARD
    expected = ids_of(loaded, lines)
    fast = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    found = [x.ids for x in fast.encode_batch_fast(lines, add_special_tokens=False)]
    assert found == expected
    assert_the_same(tokenizer.load(directory / "tokenizer.json", lower_case=True), loaded, lines)

    peer = hf().AutoTokenizer.from_pretrained(directory)
    assert peer(lines, add_special_tokens=False)["input_ids"] == found
    special = loaded.special
    (a, b), second = ids_of(loaded, ["Hello there.", "Yes, sir!"]), int(contents.config.token_types > 1)
    pair = peer("Hello there.", "Yes, sir!")
    assert pair["input_ids"] == [special.cls, *a, special.sep, *b, special.sep]
    assert pair.get("token_type_ids", [0] * (len(a + b) + 3)) == [0] * (len(a) + 2) + [second] * (len(b) + 1)
    assert (peer.pad_token_id, peer.unk_token_id, peer.mask_token_id) == (special.pad, special.unk, special.mask)
    assert peer("a [MASK] b", add_special_tokens=False)["input_ids"].count(special.mask) == 1
    if file.endswith(".txt"):  # which has a tokenizer in Python too
        slow = hf().BertTokenizerLegacy.from_pretrained(directory)
        assert [slow(line, add_special_tokens=False)["input_ids"] for line in lines[:100]] == expected[:100]
    assert peer.model_max_length == contents.config.max_positions
    peer.save_pretrained(tmp_path / "again")  # transformers 5 saves no vocab.txt and no spiece.model
    assert not (tmp_path / "again" / source.name).exists()
    assert_the_same(tokenizer.load(tmp_path / "again" / "tokenizer.json", lower_case=lower_case), loaded, lines)


@pytest.mark.parametrize("lower_case", [False, True])
def test_letters_that_normalisation_takes_apart_are_put_together_again(lower_case, tmp_path):
    """Japanese marks and Korean syllables, which are six bytes or more on the way."""
    texts = ["彼女が学校でガラスを見た。", "한국어를 읽는다", "ヴァイオリンとプール", "Việt Nam đẹp lắm", "क़लम"]
    train_sentencepiece(
        texts * 9, tmp_path / "spiece.model", vocab_size=59 if lower_case else 60, lower_case=lower_case
    )
    loaded = tokenizer.load(tmp_path / "spiece.model", lower_case=lower_case)
    expected = ids_of(loaded, texts)
    assert not any(loaded.special.unk in ids for ids in expected)
    directory = write(tmp_path / "hf", **model_for(loaded), tokenizer=tmp_path / "spiece.model", lower_case=lower_case)
    fast = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert [x.ids for x in fast.encode_batch_fast(texts, add_special_tokens=False)] == expected


@pytest.mark.parametrize("lower_case", [False, True])
def test_a_trained_wordpiece_vocabulary_is_exported_with_its_ids_and_its_case(lower_case, tmp_path):
    """The case is not named again: the pieces show it."""
    texts = [*TEXT, *HARD, "Ein schönes Café in Köln."] * 2
    with pytest.raises(DataError, match="use at most") as caught:
        train_wordpiece(texts, tmp_path / "vocab.txt", vocab_size=9999, lower_case=lower_case)
    size = int(str(caught.value).split("at most ")[1].split(",")[0])
    train_wordpiece(texts, tmp_path / "vocab.txt", vocab_size=size, lower_case=lower_case)
    loaded = tokenizer.load(tmp_path / "vocab.txt", lower_case=None)
    assert loaded.lower_case == lower_case
    directory = write(tmp_path / "hf", **model_for(loaded), tokenizer=tmp_path / "vocab.txt", lower_case=None)
    contents = read(directory)
    assert (contents.lower_case, contents.tokenizer.name) == (lower_case, "vocab.txt")
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    assert settings["do_lower_case"] == settings["strip_accents"] == lower_case
    fast = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert [x.ids for x in fast.encode_batch_fast(texts, add_special_tokens=False)] == ids_of(loaded, texts)
    reference = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=lower_case)
    assert [reference.encode(text, add_special_tokens=False).ids for text in texts] == ids_of(loaded, texts)
    if importlib.util.find_spec("transformers"):
        peer = hf().AutoTokenizer.from_pretrained(directory)
        assert peer(texts, add_special_tokens=False)["input_ids"] == ids_of(loaded, texts)


def test_positions_of_an_exported_roberta_count_from_its_own_padding(tmp_path):
    """transformers computes them from pad_token_id: with the vocabulary's own, a padded row keeps its logits."""
    torch = pytest.importorskip("torch")
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(300))]))
    directory = write(tmp_path / "model", "roberta", tokenizer=vocabulary)
    assert_same(read(directory).params, ours("roberta")[1])
    peer = hf().AutoModelForMaskedLM.from_pretrained(directory).eval()
    assert (peer.config.pad_token_id, peer.config.max_position_embeddings) == (0, 33)
    ids = torch.tensor([[3, 1, 9, 8, 4, 0, 0]])  # id 1 is a token, 0 is padding
    positions = torch.tensor([[1, 2, 3, 4, 5, 0, 0]])
    expected = peer(ids, attention_mask=(ids > 0).long(), position_ids=positions).logits
    torch.testing.assert_close(peer(ids, attention_mask=(ids > 0).long()).logits, expected, rtol=0, atol=0)


# Byte-level BPE ------------------------------------------------------------------------------------------------------


def test_a_byte_level_bpe_goes_in_and_out_as_it_is(tmp_path):
    """transformers takes it for RoBERTa's, counts positions from its padding and lays pairs out as RoBERTa does."""
    source = train_bpe(tmp_path / "any.json")
    loaded = tokenizer.load(source, lower_case=True)
    directory = write(tmp_path / "model", **model_for(loaded, "roberta"), tokenizer=source)
    names = {path.name for path in directory.iterdir()}
    tokenizers = {name for name in names if "token" in name or "vocab" in name or name.endswith(".model")}
    assert tokenizers == {"tokenizer.json", "tokenizer_config.json"}
    contents = read(directory)
    assert contents.tokenizer == directory / "tokenizer.json"
    assert tokenizer.load(contents.tokenizer, lower_case=contents.lower_case).digest == loaded.digest
    config = json.loads((directory / "config.json").read_text())
    assert {n: config[f"{n}_token_id"] for n in ("pad", "bos", "eos")} == {"pad": 1, "bos": 0, "eos": 2}
    assert config["max_position_embeddings"] == contents.config.max_positions + 2

    peer = hf().AutoTokenizer.from_pretrained(directory)
    assert type(peer) is hf().RobertaTokenizer and len(peer) == loaded.vocab_size
    lines = TEXT + HARD
    assert peer(lines, add_special_tokens=False)["input_ids"] == ids_of(loaded, lines)
    (a, b) = ids_of(loaded, ["The king", "Why?"])
    assert dict(peer("The king", "Why?")) == {
        "input_ids": [0, *a, 2, 2, *b, 2],
        "attention_mask": [1] * (len(a + b) + 4),
    }
    assert (peer.pad_token_id, peer.unk_token_id, peer.mask_token_id, peer.model_max_length) == (1, 3, 4, 32)
    assert peer("a <mask> b")["input_ids"].count(4) == 1


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("bert", {}),
        ("bert", {"specials": ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]}),
        ("roberta", {"specials": ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]}),
        ("roberta", {"prefix_space": True}),
        ("roberta", {"normalizer": tokenizers.normalizers.Lowercase()}),
    ],
)
def test_other_byte_level_bpes_keep_their_ids(kind, changes, tmp_path):
    """With pairs their layout is that of pretraining; what RoBERTa's class would not rebuild is loaded as it is."""
    source = train_bpe(tmp_path / "any.json", **changes)
    loaded = tokenizer.load(source, lower_case=True)
    directory = write(tmp_path / "model", **model_for(loaded, kind), tokenizer=source)
    again = tokenizer.load(directory / "tokenizer.json", lower_case=True)
    lines = TEXT + HARD
    expected = ids_of(loaded, lines)
    assert ids_of(again, lines) == expected and again.pieces == loaded.pieces

    peer = hf().AutoTokenizer.from_pretrained(directory)
    assert len(peer) == loaded.vocab_size
    assert peer(lines, add_special_tokens=False)["input_ids"] == expected
    special = loaded.special
    (a, b) = ids_of(loaded, ["The king", "Why?"])
    assert peer("The king")["input_ids"] == [special.cls, *a, special.sep]
    assert (peer.pad_token_id, peer.unk_token_id, peer.mask_token_id) == (special.pad, special.unk, special.mask)
    if kind == "bert":
        pair = peer("The king", "Why?")
        assert pair["input_ids"] == [special.cls, *a, special.sep, *b, special.sep]
        assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)


def test_a_directory_of_roberta_comes_back(tmp_path):
    """As transformers saves it: contents and exported again, with the ids of its own tokenizer."""
    train_bpe(tmp_path / "tokenizer.json")
    theirs = hf().RobertaTokenizerFast.from_pretrained(tmp_path)
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = hf().RobertaConfig(vocab_size=360, max_position_embeddings=34, type_vocab_size=1, **sizes)
    hf().RobertaForMaskedLM(config).save_pretrained(tmp_path / "theirs")
    theirs.save_pretrained(tmp_path / "theirs")
    contents = read(tmp_path / "theirs")
    assert contents.fresh == ("pooler",) and contents.config.max_positions == 32
    loaded = tokenizer.load(contents.tokenizer, lower_case=contents.lower_case)
    lines = TEXT + HARD
    assert ids_of(loaded, lines) == theirs(lines, add_special_tokens=False)["input_ids"]
    ours = write(tmp_path / "ours", config=contents.config, params=contents.params, tokenizer=contents.tokenizer)
    assert read(ours).config == contents.config
    assert_same(read(ours).params, contents.params)
    assert hf().AutoTokenizer.from_pretrained(ours)(lines) == theirs(lines)


def test_a_tokenizer_json_of_another_kind_is_not_exported(tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizers.Tokenizer(tokenizers.models.WordLevel()).to_str())
    with pytest.raises(DataError, match="its model.unk_token is not in its vocabulary") as caught:
        write(tmp_path / "model", "roberta", tokenizer=tmp_path / "tokenizer.json")
    assert len(str(caught.value).splitlines()) == 1 and not (tmp_path / "model").exists()
