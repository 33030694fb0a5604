"""The tokenizers of SMILES, proteins, DNA and ids read as they should, and are the same in every program."""

import functools
import itertools
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertjax.data import tokenizer
from bertjax.errors import DataError, StorageError
from bertjax.vocabulary import alphabets

SMILES = [
    "CC(=O)Oc1ccccc1C(=O)O aspirin",
    "C[C@@H](N)C(=O)O",
    "[Na+].[Cl-]",
    "BrC%12CCCCC%12",
    "Clc1ccc(Br)cc1",
    "C/C=C\\C",
]
ATOMS = ["C", "[C@@H]", "(", "N", ")", "C", "(", "=", "O", ")", "O"]


def made(path, alphabet, texts=(), vocab_size=30, kmer=6):
    unknown = alphabets.make_tokenizer(texts, path, alphabet=alphabet, kmer=kmer, vocab_size=vocab_size)
    return tokenizer.load(path, lower_case=False), unknown


def pieces(loaded, text):
    return [loaded.pieces[i] for i in loaded.encode_batch([text])[0]]


@pytest.fixture(scope="module")
def smiles(tmp_path_factory):
    return made(tmp_path_factory.mktemp("smiles") / "tokenizer.json", "smiles", SMILES, vocab_size=22)[0]


def test_atoms_of_smiles_are_pieces(smiles):
    assert pieces(smiles, SMILES[1]) == ATOMS
    assert pieces(smiles, "BrC%12CCCCC%12") == ["Br", "C", "%12", *"CCCCC", "%12"]
    assert pieces(smiles, "[Na+].[Cl-]") == ["[Na+]", ".", "[Cl-]"]
    assert pieces(smiles, "Clc1C") == ["Cl", "c", "1", "C"]  # chlorine, and two carbons that differ in case
    assert smiles.decode(smiles.encode_batch([SMILES[4]])[0]) == SMILES[4]
    assert smiles.starts_word.all()


def test_what_follows_a_space_is_a_name(smiles):
    for text in ("CCO ethanol", " CCO\tethanol C", "CCO \n"):
        assert pieces(smiles, text) == ["C", "C", "O"]


def test_special_pieces_typed_in_a_text_are_none(smiles):
    for text in ("C[MASK]C", "C<mask>C", "<pad>", "<mask>"):
        ids = smiles.encode_batch([text])[0]
        special = smiles.special
        assert not {special.pad, special.cls, special.sep, special.mask} & set(ids.tolist()), text


def test_the_most_frequent_atoms_are_kept_whatever_the_order(tmp_path):
    loaded, unknown = made(tmp_path / "a.json", "smiles", SMILES, vocab_size=8)
    assert loaded.pieces[:7] == [*alphabets.SPECIAL, "C", "c"] and loaded.vocab_size == 8
    counts = [sum(pieces(loaded, text).count("<unk>") for text in SMILES), sum(len(pieces(loaded, t)) for t in SMILES)]
    assert unknown == pytest.approx(counts[0] / counts[1])
    made(tmp_path / "b.json", "smiles", random.Random(0).sample(SMILES, len(SMILES)), vocab_size=8)
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()


@given(st.text(alphabet="ACGTNacgt", max_size=40), st.integers(1, 4))
def test_dna_is_read_in_kmers_that_do_not_overlap(sequence, kmer):
    """By a loop: k letters if all are known, or else one."""
    loaded = dna(kmer)
    expected, rest = [], sequence.upper()
    while rest:
        size = kmer if len(rest) >= kmer and "N" not in rest[:kmer] else 1
        expected.append(rest[:size])
        rest = rest[size:]
    assert pieces(loaded, sequence) == expected
    assert loaded.decode(loaded.encode_batch([sequence])[0]) == sequence.upper()


@functools.cache
def dna(kmer):
    size = 4**kmer + (5 if kmer > 1 else 1) + 5
    with tempfile.TemporaryDirectory() as folder:
        return made(Path(folder) / "tokenizer.json", "dna", vocab_size=size, kmer=kmer)[0]


def test_dna_has_every_kmer_and_what_is_no_base_is_unknown():
    loaded = dna(3)
    assert loaded.vocab_size == 64 + 5 + 5
    assert set(loaded.pieces[5:69]) == {"".join(three) for three in itertools.product("ACGT", repeat=3)}
    assert pieces(loaded, "ACG ACG\nXACG") == ["ACG", "ACG", "<unk>", "ACG"]


def test_proteins_are_letters(tmp_path):
    loaded, unknown = made(tmp_path / "tokenizer.json", "protein", ["MKT", "mk-"], vocab_size=31)
    assert pieces(loaded, "M K T\nmk-*") == [*"MKTMK", "<unk>"]
    assert loaded.decode(loaded.encode_batch(["MKTW"])[0]) == "MKTW"
    assert unknown == pytest.approx(1 / 6)


def test_ids_are_themselves_and_the_special_pieces_come_behind(tmp_path):
    path = tmp_path / "tokenizer.json"
    alphabets.make_ids(["3 0 41", "7"], path, vocab_size=47)
    loaded = tokenizer.load(path, lower_case=True)
    ids, lengths = loaded.encode_batch(["0 41 7", "", "3 48 <mask>"])
    assert ids.tolist() == [0, 41, 7, 3, loaded.special.unk, loaded.special.unk] and lengths.tolist() == [3, 0, 3]
    assert loaded.special == tokenizer.Special(pad=42, unk=43, cls=44, sep=45, mask=46)
    assert loaded.decode([5, 6, 41]) == "5 6 41"
    assert len(set(loaded.spellings)) == loaded.vocab_size == 47


@pytest.mark.parametrize(
    ("alphabet", "size", "fix"),
    [
        ("protein", 30, "31 pieces; set it to 31"),
        ("dna", 4096, "4106 pieces; set it to 4106"),
    ],
)
def test_a_vocabulary_that_is_too_small_is_refused_with_the_one_that_fits(tmp_path, alphabet, size, fix):
    with pytest.raises(DataError, match=rf"^model.vocab_size = {size}: data.alphabet = {alphabet}.*{fix}$"):
        made(tmp_path / "tokenizer.json", alphabet, SMILES, vocab_size=size)
    assert not list(tmp_path.iterdir())


def test_the_vocabulary_of_ids_follows_the_largest(tmp_path):
    with pytest.raises(DataError, match=r"^model.vocab_size = 46: .*largest id is 41.*set it to 47$"):
        alphabets.make_ids(["3 41"], tmp_path / "tokenizer.json", vocab_size=46)
    with pytest.raises(DataError, match="largest id is 2147483646"):  # which would take all memory
        alphabets.make_ids(["2147483646"], tmp_path / "tokenizer.json", vocab_size=47)


@pytest.mark.parametrize(("alphabet", "has"), [("smiles", 22), ("protein", 31), ("dna", 4106)])
def test_a_larger_vocabulary_is_no_mistake(tmp_path, alphabet, has):
    """Only its user knows the text; the word table may have more rows."""
    assert made(tmp_path / "tokenizer.json", alphabet, SMILES, vocab_size=30522)[0].vocab_size == has


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="tokenizer.json"):
        made(tmp_path / "file" / "tokenizer.json", "protein", vocab_size=31)


def test_no_text_is_no_share_of_unknown(tmp_path):
    assert made(tmp_path / "tokenizer.json", "protein", [], vocab_size=31)[1] == 0.0


def test_pieces_are_numbered_without_gaps(smiles, tmp_path):
    for loaded in (smiles, dna(2)):
        assert len(set(loaded.pieces)) == loaded.vocab_size
        assert np.unique(list(vars(loaded.special).values())).size == 5
    made(tmp_path / "tokenizer.json", "dna", kmer=2, vocab_size=26)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["type"] == "WordLevel"
