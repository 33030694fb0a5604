"""The files of a tokenizer in a directory of transformers: found there, and written so that its ids are ours."""

import dataclasses
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import tokenizers
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors

from bertjax.config.schema import ModelConfig
from bertjax.data.tokenizer import Tokenizer, bert_normalizer
from bertjax.errors import CheckpointError, DataError
from bertjax.huggingface.safetensors import read_json

CONFIG = "tokenizer_config.json"
FILES = ("vocab.txt", "spiece.model", "tokenizer.json")
"""Of which the first that is there holds the tokenizer."""


def find_tokenizer(directory: Path) -> tuple[Path | None, bool]:
    """The file that holds the tokenizer, None if there is none, and whether it is uncased: True if nothing says so.

    A tokenizer.json, which says itself what happens to case, is taken where nothing else is. Raises CheckpointError for
    a damaged tokenizer_config.json.
    """
    settings = directory / CONFIG
    told = read_json(settings).get("do_lower_case") if os.path.lexists(settings) else None
    if not isinstance(told, bool | None):
        raise CheckpointError(f"{settings}: do_lower_case = {told!r:.60}: must be true or false")
    files = (directory / name for name in FILES)
    # A file that cannot be read is there all the same: another must not be taken in its place.
    return next((file for file in files if os.path.lexists(file)), None), told is not False


def tokenizer_files(source: Path, tokenizer: Tokenizer, config: ModelConfig) -> dict[str, bytes]:
    """Contents by file name of tokenizer.json, tokenizer_config.json and the vocabulary, for the tokenizer in `source`.

    They give the ids of `tokenizer`, but a special piece typed in a text is that id. A byte-level BPE remains the file
    that it was where RoBERTa's class builds the same from it and the model has no pairs, of which RoBERTa has another
    layout. Raises DataError for a SentencePiece model that is not unigram.
    """
    special = dataclasses.asdict(tokenizer.special)
    pieces = {name: tokenizer.pieces[index] for name, index in special.items()}
    cls, sep, second = pieces["cls"], pieces["sep"], int(config.token_types > 1)
    settings = {
        "model_max_length": config.max_positions,
        "model_input_names": ["input_ids", *(["token_type_ids"] if second else []), "attention_mask"],
    } | {f"{name}_token": piece for name, piece in pieces.items()}
    content = source.read_bytes()
    if source.suffix == ".json":
        fast, files = tokenizers.Tokenizer.from_str(content.decode()), {}
        split, pairs = fast.pre_tokenizer, second or "pair_head" in config.heads
        if not pairs and fast.normalizer is None and isinstance(split, pre_tokenizers.ByteLevel) and split.use_regex:
            settings |= {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": split.add_prefix_space}
            settings |= {"bos_token": cls, "eos_token": sep}
            return {"tokenizer.json": content, CONFIG: _encoded(settings)}
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    elif source.suffix == ".model":
        fast, files = _unigram(source, content, tokenizer.lower_case), {"spiece.model": content}
        # AlbertTokenizer would build another from spiece.model; this class takes tokenizer.json as it is.
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": tokenizer.lower_case}
    else:
        fast, files = _wordpiece(tokenizer), {"vocab.txt": content}
        settings |= dict.fromkeys(("do_lower_case", "strip_accents"), tokenizer.lower_case)
        settings |= {"tokenizer_class": "BertTokenizer"}
    fast.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:{second} {sep}:{second}",
        special_tokens=[(cls, special["cls"]), (sep, special["sep"])],
    )
    fast.add_special_tokens([tokenizers.AddedToken(piece, special=True, normalized=False) for piece in pieces.values()])
    return files | {"tokenizer.json": fast.to_str().encode(), CONFIG: _encoded(settings)}


def _wordpiece(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The same as ours; transformers' slow tokenizer alone has another lower case of a Greek sigma at word ends."""
    vocabulary = {piece: index for index, piece in enumerate(tokenizer.pieces)}
    fast = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer = bert_normalizer(tokenizer.lower_case)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece()
    return fast


def _unigram(source: Path, content: bytes, lower_case: bool) -> tokenizers.Tokenizer:
    """ALBERT's normalisation, the model's own, and its pieces with scores that make up for what cannot be said.

    A user-defined piece always wins in SentencePiece, by this score. Two differences from SentencePiece are left, in
    12 of 337,577 lines of English with ALBERT's vocabulary:

    - ALBERT splits a piece that ends in a digit and a comma again ("▁2020," as "▁2020" and ","). Here it is never
      chosen, so "1,050" is "▁ 1,0 50" where it was "▁1, 050", split into "▁1 , 050" (10 lines).
    - Two ways to split a word with the same sum of scores, but for rounding: "cn n nn" for "cn nn n" (2 lines).
    """
    proto = ModelProto.FromString(content)
    if proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
        raise DataError(f"{source}: not a unigram model; only these can be exported")
    best = max(piece.score for piece in proto.pieces if piece.type == piece.NORMAL)
    vocabulary = []
    for piece in proto.pieces:
        never = len(piece.piece) > 1 and piece.piece[-1] == "," and piece.piece[-2].isdigit()
        always = piece.type == piece.USER_DEFINED
        score = len(piece.piece) * best - 0.1 if always else piece.score
        vocabulary.append((piece.piece, -100.0 if never else score))
    steps = [normalizers.Replace(Regex(r"[\s\x1c-\x1f]+"), " "), normalizers.NFKD()]
    if lower_case:
        # Not StripAccents, which would also remove the vowels of Hindi.
        marks = "".join(f"\\x{{{i:x}}}" for i in range(0x110000) if unicodedata.combining(chr(i)))
        steps += [normalizers.Replace(Regex(f"[{marks}]"), ""), normalizers.Lowercase()]
    if proto.normalizer_spec.precompiled_charsmap:
        # The map composes what NFKD took apart, but tokenizers looks up no cluster of six bytes or more: が, 한.
        steps += [normalizers.NFC(), normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)]
    steps += [normalizers.Replace(Regex(" +"), " "), normalizers.Strip(left=False, right=True)]
    fast = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, proto.trainer_spec.unk_id, False))
    fast.normalizer = normalizers.Sequence(steps)
    # "first": what follows a special piece in a text without a space does not begin a word.
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    fast.decoder = decoders.Metaspace(prepend_scheme="first")
    return fast


def _encoded(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()
