"""Tokenizers of alphabets that are no words: SMILES, proteins, k-mers of DNA, ids. A rule says what a piece is.

Each is a WordLevel `tokenizer.json` of the tokenizers library, so training, export and transformers read the one file.
Nothing is lower-cased but soft-masked letters of proteins and DNA (acgt), which become capitals.

- smiles   atoms, bonds, rings and branches by the pattern of Schwaller et al. 2019 (arXiv 1811.02633), the most
           frequent ones; what follows a space in a line is a name, and left out
- protein  the 26 letters of IUPAC
- dna      k-mers that do not overlap, from the left; letters by themselves where no k-mer fits, beside N and at the
           end (as in the Nucleotide Transformer). Overlapping ones would show a masked k-mer in its neighbours
- ids      the names 0, 1, 2 ..., each its own id; the special pieces come behind them
"""

import itertools
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from bertjax import storage
from bertjax.errors import DataError, StorageError

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
"""Not [MASK] and its like, which in SMILES would be an atom."""
_ATOMS = (
    r"\[[^\]]+\]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>>?|\*|\$|%[0-9]{2}|[0-9]"  # fmt: skip
)
_SAMPLE = 1_000  # texts that are looked at for what is no piece


def make_tokenizer(texts: Iterable[str], path: Path, *, alphabet: str, kmer: int, vocab_size: int) -> float:
    """Write the tokenizer.json of smiles, protein or dna, whole or not at all; the share of unknown pieces in a sample.

    Only smiles reads all of `texts`; it keeps the `vocab_size` most frequent pieces. Raises DataError if the alphabet
    has more than `vocab_size` pieces, saying how many, and StorageError where `path` cannot be written.
    """
    texts = iter(texts)
    sample = list(itertools.islice(texts, _SAMPLE))
    if alphabet == "smiles":
        made = _smiles(itertools.chain(sample, texts), vocab_size)
    elif alphabet == "protein":
        made = _letters("[A-Z]", string.ascii_uppercase, list(string.ascii_uppercase))
    else:
        words = ["".join(letters) for letters in itertools.product("ACGT", repeat=kmer)]
        made = _letters(f"[ACGT]{{{kmer}}}|[ACGTN]", "ACGTN", list(dict.fromkeys([*words, *"ACGTN"])))
    _check(f"data.alphabet = {alphabet}", made.get_vocab_size(), vocab_size)
    _write(path, made)
    unknown = made.token_to_id("<unk>")
    found = np.array([i for encoded in made.encode_batch_fast(sample) for i in encoded.ids])
    return float(np.mean(found == unknown)) if found.size else 0.0


def make_ids(sequences: Iterable[str], path: Path, *, vocab_size: int) -> None:
    """Write a tokenizer.json that gives each id of `sequences`, numbers with spaces between them, as itself.

    Raises DataError if the largest id needs more than `vocab_size` pieces, and StorageError where it cannot be written.
    """
    largest = max((int(number) for text in sequences for number in text.split()), default=-1)
    _check(f"data.format = ids: the largest id is {largest}", largest + 1 + len(SPECIAL), vocab_size)
    made = _tokenizer([*map(str, range(largest + 1)), *SPECIAL])
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    _write(path, made)


def _smiles(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    pattern = re.compile(_ATOMS)
    counts = Counter(itertools.chain.from_iterable(pattern.findall(line[0]) for t in texts if (line := t.split())))
    # By name where the counts are equal, so that the same text in another order gives the same file.
    ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
    made = _tokenizer([*SPECIAL, *ranked[: vocab_size - len(SPECIAL)]])
    made.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(r"\s[\s\S]*"), "")])
    made.pre_tokenizer = pre_tokenizers.Split(Regex(_ATOMS), "isolated")
    made.decoder = decoders.Fuse()
    return made


def _letters(pattern: str, letters: str, pieces: Sequence[str]) -> tokenizers.Tokenizer:
    """Of texts in which white space means nothing, and small letters are those of `letters`."""
    made = _tokenizer([*SPECIAL, *pieces])
    capitals = [normalizers.Replace(letter.lower(), letter) for letter in letters]
    made.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), ""), *capitals])
    made.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    made.decoder = decoders.Fuse()
    return made


def _tokenizer(pieces: Sequence[str]) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))


def _check(what: str, has: int, vocab_size: int) -> None:
    if vocab_size < has:
        raise DataError(f"model.vocab_size = {vocab_size}: {what}, which makes {has} pieces; set it to {has}")


def _write(path: Path, made: tokenizers.Tokenizer) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write(path, made.to_str(pretty=True) + "\n")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror}); check the disk and permissions") from None
