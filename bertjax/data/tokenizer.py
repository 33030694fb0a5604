"""Tokenizers: SentencePiece, WordPiece and the JSON files of the tokenizers library behind one small protocol."""

import hashlib
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sentencepiece
import tokenizers

from bertjax import storage
from bertjax.errors import DataError, one_line

SUFFIXES = (".model", ".txt", ".json")
"""Of the files that `load` reads."""
SIZE_LIMIT = 100_000_000  # bytes; the largest published tokenizer.json has a third of that
_UNUSABLE = 0.003  # share of the pieces
Normalise = Callable[[str], str]


@dataclass(frozen=True)
class Special:
    """The ids of the pieces that carry no text."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


class Tokenizer(Protocol):
    """Text to ids and back. Ids are 0 .. vocab_size - 1."""

    vocab_size: int
    special: Special
    digest: str  # SHA-256 of the file, in hex
    pieces: list[str]
    spellings: list[str]  # of each piece in running text: with a space before it where it begins a word
    starts_word: np.ndarray  # bool [vocab_size]: whole-word masking begins a word here
    lower_case: bool  # whether a text loses its case and its accents first; of a .json, as it was asked for

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts one after the other, int32 [n], and how many each has, int64 [texts].

        Without [CLS] and [SEP]; "[MASK]" typed in a text is ordinary text. Flat, because an array for each of many
        short sentences costs more than tokenising them.
        """
        ...

    def encode_places(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `encode_batch`, and where in its text each token is, int32 [n, 2]: its first character and the one after
        its last; white space before it may belong to it, and an accent that is dropped may not. Slower.
        """
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Readable text of `ids`; white space, and in an uncased vocabulary case and accents, are not restored."""
        ...


def load(path: str | Path, *, lower_case: bool | None) -> Tokenizer:
    """The tokenizer of a SentencePiece `.model`, a WordPiece `.txt` or a `.json` of the tokenizers library: the
    byte-level BPE of RoBERTa, what transformers saves of BERT and ALBERT, or a list of words (WordLevel). Cheap
    enough for each worker to call.

    With `lower_case` None, a text loses its case and accents unless the pieces need them (`_is_uncased`). A `.json`
    says itself what happens to them, so `lower_case` means nothing to it. Raises DataError for a file that is missing,
    empty, damaged, of another kind, or without the special pieces. The libraries that read it are native code: a file
    that nobody has tried may end the process, and goes through `bertjax.data.trial` first.
    """
    return parse(path, contents(path), lower_case=lower_case)


def contents(path: str | Path) -> bytes:
    """The bytes of a tokenizer file. Raises DataError for one that is missing, empty or too large, no regular file, or
    not the one that SHA256SUMS beside it records.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        ends = ".model (SentencePiece), .txt (WordPiece) or .json (of the tokenizers library)"
        raise DataError(f"data.tokenizer = {str(path)!r}: must end in {ends}")
    try:
        content = storage.read(path, SIZE_LIMIT)
    except OSError as error:
        fix = "train one with `bertjax tokenizer` or name a .model, .txt or .json file"
        raise DataError(f"data.tokenizer = {str(path)!r}: cannot be read ({error.strerror}); {fix}") from None
    if not content.strip():  # SentencePiece would load it without a word
        raise DataError(f"data.tokenizer = {str(path)!r}: the file is empty; copy or train it again")
    return content


def parse(path: str | Path, content: bytes, *, lower_case: bool | None) -> Tokenizer:
    """The tokenizer of a file with this content. Raises DataError as `load` does."""
    makers: tuple[Callable[[Path, bytes, bool | None], Tokenizer], ...] = (_SentencePiece, _WordPiece, _Json)
    return dict(zip(SUFFIXES, makers, strict=True))[Path(path).suffix](Path(path), content, lower_case)


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raise DataError if ids could fall outside a word table of `vocab_size` rows: a device would read another row."""
    if (pieces := tokenizer.vocab_size) > vocab_size:
        problem = f"smaller than the {pieces} pieces of the tokenizer; set it to {pieces} or more"
        raise DataError(f"model.vocab_size = {vocab_size}: {problem}")


def _is_uncased(pieces: list[str], special: Special, cased: Normalise, uncased: Normalise) -> bool:
    """Whether next to no piece has a capital or an accent, which an uncased text could never use: less than 0.1 % of
    those of BERT's uncased vocabulary and 30 % of its cased one do. A text is normalised by one of the two functions.
    """
    text = [piece for index, piece in enumerate(pieces) if index not in astuple(special)]
    return sum(uncased(piece) != cased(piece) for piece in text) <= _UNUSABLE * len(text)


def _special(path: Path, pieces: list[str], names: Sequence[Sequence[str]]) -> Special:
    ids = {piece: index for index, piece in enumerate(pieces)}
    found = [next((ids[name] for name in spellings if name in ids), None) for spellings in names]
    missing = [" or ".join(spellings) for spellings, index in zip(names, found, strict=True) if index is None]
    if missing:
        raise DataError(
            f"data.tokenizer = {str(path)!r}: has no piece {', '.join(missing)}; name one made for BERT or ALBERT"
        )
    return Special(*(index for index in found if index is not None))


def _flat(encoded: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(ids) for ids in encoded], np.int64)
    return np.fromiter(itertools.chain.from_iterable(encoded), np.int32, lengths.sum()), lengths


def _with_places(encoded: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids_n, lengths = _flat([encoding.ids for encoding in encoded])
    places = itertools.chain.from_iterable(itertools.chain.from_iterable(encoding.offsets for encoding in encoded))
    return ids_n, lengths, np.fromiter(places, np.int32, 2 * len(ids_n)).reshape(-1, 2)


# SentencePiece -----------------------------------------------------------------------------------------------------

_PUNCTUATION = frozenset('!"#$%&"()*+,-./:;?@[\\]^_`{|}~')
_WORD_INSIDE = frozenset("abcdefghijklmnopqrstuvwxyz") | _PUNCTUATION
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def _starts_word(piece: str) -> bool:
    """ALBERT's `_is_start_piece_sp` (create_pretraining_data.py): any digit or foreign character starts a word."""
    inside = all(character.lower() in _WORD_INSIDE for character in piece)
    return piece.startswith(("▁", "<")) or piece in _PUNCTUATION or not inside


def normalise(text: str, lower_case: bool) -> str:
    """ALBERT's `preprocess_text`: one space for any white space, NFKD; uncased: no combining marks, lower case."""
    text = " ".join(text.split())
    if not text.isascii():
        # Run by run, because there are few in English and mostly the same ones; no rule of NFKD reaches across ASCII.
        text = _NOT_ASCII.sub(lambda run: _decomposed(run[0], lower_case), text)
    return text.lower() if lower_case else text


@lru_cache(maxsize=4096)
def _decomposed(run: str, lower_case: bool) -> str:
    run = unicodedata.normalize("NFKD", run)
    return "".join(character for character in run if not (lower_case and unicodedata.combining(character)))


def _origins(text: str, lower_case: bool) -> list[int]:
    """Which character of `text` each of those of `normalise` is from."""
    found: list[int] = []
    for number, word in enumerate(re.finditer(r"\S+", text)):
        found += [word.start() - 1] * (number > 0)  # the space
        places = range(*word.span())
        found += places if word[0].isascii() else [at for at in places for _ in _decomposed(text[at], lower_case)]
    return found


class _SentencePiece:
    def __init__(self, path: Path, content: bytes, lower_case: bool | None) -> None:
        try:
            # One thread: the parallelism is over processes, and a pool in each would only get in the way.
            self._model = sentencepiece.SentencePieceProcessor(model_proto=content, num_threads=1)
        except RuntimeError:
            raise DataError(
                f"data.tokenizer = {str(path)!r}: not a SentencePiece model or a damaged one; copy or train it again"
            ) from None
        self.digest = hashlib.sha256(content).hexdigest()
        self.pieces = [self._model.id_to_piece(index) for index in range(self._model.get_piece_size())]
        self.vocab_size = len(self.pieces)
        self.special = _special(
            path, self.pieces, [["<pad>", "[PAD]"], ["<unk>", "[UNK]"], ["[CLS]"], ["[SEP]"], ["[MASK]"]]
        )
        if lower_case is None:
            both = (partial(normalise, lower_case=case) for case in (False, True))
            lower_case = _is_uncased(self.pieces, self.special, *both)
        self.lower_case = lower_case
        self.spellings = [" " + piece[1:] if piece[0] == "▁" else piece for piece in self.pieces]
        self.starts_word = np.array([_starts_word(piece) for piece in self.pieces])
        self._splits = {index: self._split(piece) for index, piece in enumerate(self.pieces) if _ends_in_comma(piece)}
        self._is_split = np.isin(np.arange(self.vocab_size), list(self._splits))

    def _split(self, piece: str) -> list[int]:
        """ALBERT's `encode_pieces`: "▁2020," is encoded again as "2020" and ",", so that a number is one number."""
        parts = self._model.encode(piece[:-1].replace("▁", ""), out_type=str)
        if piece[0] != "▁" and parts[0][0] == "▁":
            parts = parts[1:] if len(parts[0]) == 1 else [parts[0][1:], *parts[1:]]
        return [self._model.piece_to_id(part) for part in [*parts, ","]]

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        ids_n, lengths = _flat(self._model.encode([normalise(text, self.lower_case) for text in texts]))
        at_k = np.flatnonzero(self._is_split[ids_n])
        if not at_k.size:
            return ids_n, lengths
        # Each of these pieces stands for several: how many more, added to the length of the text that it is in.
        parts = [self._splits[index] for index in ids_n[at_k].tolist()]
        more_k = np.array([len(part) - 1 for part in parts])
        text_k = np.searchsorted(np.cumsum(lengths), at_k, side="right")
        counts_n = np.ones(ids_n.size, np.int64)
        counts_n[at_k] += more_k
        lengths = lengths + np.bincount(text_k, more_k, len(texts)).astype(np.int64)
        split_n = np.repeat(ids_n, counts_n)
        split_n[np.repeat(self._is_split[ids_n], counts_n)] = list(itertools.chain.from_iterable(parts))
        return split_n, lengths

    def encode_places(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = self._model.encode([normalise(text, self.lower_case) for text in texts], return_type="offset_mapping")
        ids: list[list[int]] = [[] for _ in texts]
        places: list[tuple[int, int]] = []
        for text, mapping, parts_n in zip(texts, found, ids, strict=True):
            origins = _origins(text, self.lower_case)
            for index, (start, end) in zip(mapping["ids"], mapping["offsets"], strict=True):
                parts = self._splits.get(index, [index])
                sizes = [len(self.spellings[part].strip()) for part in parts[1:]]
                cuts = [start, *(end - sum(sizes[i:]) for i in range(len(sizes))), end]  # the first has the space
                parts_n += parts
                places += [(origins[a], origins[max(a, b - 1)] + 1) for a, b in itertools.pairwise(cuts)]
        return *_flat(ids), np.array(places, np.int32).reshape(-1, 2)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return self._model.decode(np.asarray(ids).tolist())


def _ends_in_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


# WordPiece ---------------------------------------------------------------------------------------------------------


def bert_normalizer(lower_case: bool) -> tokenizers.normalizers.Normalizer:
    """BERT's: control characters out, one space for any white space, spaces around Chinese characters; uncased: lower
    case, no accents.
    """
    return tokenizers.normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=lower_case, lowercase=lower_case
    )


class _WordPiece:
    def __init__(self, path: Path, content: bytes, lower_case: bool | None) -> None:
        try:
            lines = content.decode().split("\n")
        except UnicodeDecodeError as error:
            fix = f"not UTF-8 at byte {error.start}; name a WordPiece vocabulary"
            raise DataError(f"data.tokenizer = {str(path)!r}: {fix}") from None
        self.pieces = [line.rstrip("\r") for line in (lines if lines[-1] else lines[:-1])]
        self.vocab_size = len(self.pieces)
        self.digest = hashlib.sha256(content).hexdigest()
        self.special = _special(path, self.pieces, [["[PAD]"], ["[UNK]"], ["[CLS]"], ["[SEP]"], ["[MASK]"]])
        if lower_case is None:
            lower_case = _is_uncased(
                self.pieces, self.special, *(bert_normalizer(case).normalize_str for case in (False, True))
            )
        self.lower_case = lower_case
        self.spellings = [piece[2:] if piece.startswith("##") else " " + piece for piece in self.pieces]
        self.starts_word = np.array([not piece.startswith("##") for piece in self.pieces])
        ids = {piece: index for index, piece in enumerate(self.pieces)}
        # The specials are not registered, so that "[MASK]" in a text is split like any other punctuation.
        model = tokenizers.models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100)
        self._tokenizer = tokenizers.Tokenizer(model)
        self._tokenizer.normalizer = bert_normalizer(self.lower_case)
        self._tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        self._tokenizer.decoder = tokenizers.decoders.WordPiece(prefix="##")

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return _flat([encoding.ids for encoding in encoded])

    def encode_places(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _with_places(self._tokenizer.encode_batch(texts, add_special_tokens=False))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False)


# tokenizer.json ----------------------------------------------------------------------------------------------------

_BYTES = tokenizers.decoders.ByteLevel()
_SPELLED: dict[str, Callable[[str], str]] = {
    "WordPiece": lambda piece: piece[2:] if piece.startswith("##") else " " + piece,
    "Unigram": lambda piece: " " + piece[1:] if piece.startswith("▁") else piece,
    "BPE": lambda piece: _BYTES.decode([piece]),
    "WordLevel": lambda piece: piece,
}
"""The kinds of tokenizer.json, and how a piece of each is spelled in running text."""
_DECODERS = {"WordPiece": tokenizers.decoders.WordPiece(), "Unigram": tokenizers.decoders.Metaspace(), "BPE": _BYTES}
"""How pieces of each become text; those of WordLevel as the file says."""


class _Json:
    """A tokenizer.json of the tokenizers library. Its normalizer, if any, is the file's, and so is a space before a
    text. RoBERTa has neither: a text begins with a piece without "Ġ", which whole-word masking takes for the rest of
    a word unless a special piece stands before it.
    """

    def __init__(self, path: Path, content: bytes, lower_case: bool | None) -> None:
        self.lower_case = bool(lower_case)  # see `load`
        self._path = path
        try:
            kind, self._tokenizer = _parse_json(content)
        except Exception as error:  # the library raises nothing more special
            raise DataError(
                f"data.tokenizer = {str(path)!r}: not WordPiece, WordLevel, Unigram or byte-level BPE of the tokenizers"
                f" library ({one_line(error):.120}); name one, or the vocab.txt or .model that it comes with"
            ) from None
        self.digest = hashlib.sha256(content).hexdigest()
        self.vocab_size = self._tokenizer.get_vocab_size()
        pieces = [self._tokenizer.id_to_token(index) for index in range(self.vocab_size)]
        self.pieces = [piece for piece in pieces if piece is not None]
        if len(self.pieces) < len(pieces):
            missing = pieces.index(None)
            raise DataError(f"data.tokenizer = {str(path)!r}: has no piece with id {missing}; number them without gaps")
        names = [["<pad>", "[PAD]"], ["<unk>", "[UNK]"], ["<s>", "[CLS]"], ["</s>", "[SEP]"], ["<mask>", "[MASK]"]]
        self.special = _special(path, self.pieces, names)
        # Registered as special and then switched off: "<mask>" in a text is ordinary text.
        self._tokenizer.add_special_tokens([self.pieces[index] for index in astuple(self.special)])
        self._tokenizer.encode_special_tokens = True
        spelled = [_SPELLED[kind](piece) for piece in self.pieces]
        # A part of a character has no spelling of its own.
        self.spellings = [piece if "\ufffd" in text else text for piece, text in zip(self.pieces, spelled, strict=True)]
        starts = _starts_word if kind == "Unigram" else lambda piece: _SPELLED[kind](piece).startswith(" ")
        self.starts_word = np.array([kind == "WordLevel" or starts(piece) for piece in self.pieces])
        # A whole word that is spelled like a special piece would be that piece, in spite of the setting above.
        self._meant = np.arange(self.vocab_size, dtype=np.int32)
        if kind == "WordLevel":
            self._meant[list(astuple(self.special))] = self.special.unk

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        ids_n, lengths = _flat([encoding.ids for encoding in self._encoded(texts, "encode_batch_fast")])
        return self._meant[ids_n], lengths

    def encode_places(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids_n, lengths, places_n2 = _with_places(self._encoded(texts, "encode_batch"))
        return self._meant[ids_n], lengths, places_n2

    def _encoded(self, texts: list[str], method: str) -> list[Any]:
        try:
            return getattr(self._tokenizer, method)(texts, add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            fix = f"its library fails at a text ({one_line(error)}); copy the file again, or name another"
            raise DataError(f"data.tokenizer = {str(self._path)!r}: {fix}") from None

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False)


def _parse_json(content: bytes) -> tuple[str, tokenizers.Tokenizer]:
    """Kind and tokenizer of a file, without cutting and padding. Raises an Exception if it is of another kind."""
    values = json.loads(content)
    model, split = values["model"], values["pre_tokenizer"]
    kind = model.get("type", "BPE" if "merges" in model else "another")  # old files do not say it
    steps = split["pretokenizers"] if split and split["type"] == "Sequence" else [split]
    if kind not in _SPELLED or (kind == "BPE" and not any(step and step["type"] == "ByteLevel" for step in steps)):
        raise ValueError(f"its model is {kind}, split by {', '.join(step['type'] for step in steps if step) or 'none'}")
    # The library would fail at the first word that it does not know.
    if kind in ("WordLevel", "WordPiece") and model.get("unk_token") not in model["vocab"]:
        raise ValueError("its model.unk_token is not in its vocabulary")
    if kind == "Unigram" and model.get("unk_id") is None:
        raise ValueError("its model.unk_id is missing")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):  # ids at random; pieces not of bytes
        if model.get(name) and not (kind == "WordPiece" and model[name] == "##"):
            raise ValueError(f"its model.{name} is set")
    tokenizer = tokenizers.Tokenizer.from_str(content.decode())
    for token in values.get("added_tokens") or ():  # the library would give it another id, and say nothing
        if (index := tokenizer.token_to_id(token["content"])) != token["id"]:
            raise ValueError(f"its added token {token['content']!r:.40} has the id {token['id']}, and is {index}")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if kind in _DECODERS:
        tokenizer.decoder = _DECODERS[kind]
    return kind, tokenizer
