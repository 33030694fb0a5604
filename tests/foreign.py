"""Files of a model directory that somebody else made, damaged in every way that a test can think of."""

import copy
import json
import os
import random
from pathlib import Path

import numpy as np
from bpe import train_bpe
from directories import ours, write

from bertjax.errors import UserError
from bertjax.huggingface.directory import write as export
from bertjax.trained.load import load

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdef")]
HARD = ["", "The cat.", "東京 naïve ﬁne １２３", "x\u0301y", "q" * 300, "😀\u200d❤", "[MASK] <s>"]
CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def directories(root, spiece):
    """By family, with every kind of tokenizer file; `spiece` is a SentencePiece model."""
    vocabulary = root / "vocab.txt"
    vocabulary.write_text("\n".join(PIECES) + "\n")
    bpe = train_bpe(root / "tokenizer.json")
    of = {"bert": vocabulary, "albert": Path(spiece), "roberta": bpe, "nomic": Path(spiece), "modernbert": vocabulary}
    of |= dict.fromkeys(("bert_classify", "distilbert_span", "modernbert_tag"), vocabulary)
    found = {kind: write(root / kind, kind, tokenizer=file) for kind, file in of.items()}
    (found["nomic"] / "spiece.model").unlink()  # as transformers writes it: a tokenizer.json alone, here with Unigram
    return found


def write_whole(directory, spiece):
    """An export as it leaves bertjax."""
    config, params = ours("albert")
    export(directory, config, params, tokenizer=Path(spiece), lower_case=True, card={})
    return directory


# Damages: name and content ------------------------------------------------------------------------------------------

OTHER_VALUES = {
    "null": None,
    "true": True,
    "false": False,
    "text": "x",
    "list": [],
    "object": {},
    "minus": -1,
    "half": 0.5,
    "zero": 0,
    "int 64": 2**62,
    "400 digits": 10**400,
    "1e300": 1e300,
    "nan": float("nan"),
    "infinite": float("inf"),
    "nested": [[[[{}]]]],
    "escape": "\x1b[31mred\n",
}


def of_bytes(content, seed=0, flips=12):
    """Damages that know no format."""
    rng = random.Random(seed)
    yield "empty", b""
    yield "blank", b" \n"
    yield "zeros", bytes(len(content))
    yield "twice", content * 2
    yield "noise", rng.randbytes(len(content))
    yield "text", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440473133\n"
    yield "UTF-16", content.decode("latin-1").encode("utf-16")
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        yield f"cut at {share}", content[: int(share * len(content))]
    for number in range(flips):
        flipped = bytearray(content)
        # The first bytes are those on which the most depends.
        at = rng.randrange(min(len(content), 64 if number < 4 else len(content)))
        flipped[at] ^= 1 << rng.randrange(8)
        yield f"flip {number} at {at}", bytes(flipped)


def of_json(content, seed=0, most=60):
    """Damages of an object: something else in place of it, or of a value anywhere in it."""
    for name, text in {
        "null": "null",
        "list": "[]",
        "number": "3",
        "empty object": "{}",
        "deep": "[" * 100_000,
        "deep object": '{"a":' * 100_000,
        "huge number": "9" * 5000,
        "bom": "\ufeff{}",
    }.items():
        yield name, text.encode()
    rng, values = random.Random(seed), json.loads(content)
    places = [(place, name) for place in _places(values) for name in (*OTHER_VALUES, "absent", "more")]
    for place, name in rng.sample(places, min(most, len(places))):
        changed = copy.deepcopy(values)
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        if name == "absent":
            del inside[place[-1]]
        elif name == "more":
            inside[place[-1]] = [inside[place[-1]]] * 3
        else:
            inside[place[-1]] = OTHER_VALUES[name]
        yield f"{'.'.join(map(str, place))} = {name}", json.dumps(changed).encode()


def _places(values):
    """The path of each value, but of a few elements of what is long."""
    pairs = list(values.items() if isinstance(values, dict) else enumerate(values))
    for key, value in pairs if len(pairs) < 40 else pairs[:2]:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in _places(value))


def of_header(content, seed=0, most=60):
    """Damages of a safetensors file that leave its length right."""
    length = int.from_bytes(content[:8], "little")
    for name, header in of_json(content[8 : 8 + length], seed, most):
        yield f"header: {name}", len(header).to_bytes(8, "little") + header + content[8 + length :]
    for claimed in (0, length - 1, 2**31, 2**63):
        yield f"header of {claimed}", claimed.to_bytes(8, "little") + content[8:]


FATAL = {
    "abort": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}},
    "panic at a word": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}},
    "grows": {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}] * 9,
        }
    },
    "panic at a long word": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ]}},
}  # fmt: skip
"""Changes to a tokenizer.json at which its library ends the process, panics, or takes all memory or time."""


def without_unknown():
    """Files of tokenizers that have no piece for an unknown word: name -> content of a tokenizer.json."""
    pieces = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "▁a", "b"]
    unigram = {"type": "Unigram", "vocab": [[piece, -1.0] for piece in pieces], "byte_fallback": False}
    wordpiece = {
        "type": "WordPiece",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {piece: i for i, piece in enumerate(pieces)},
    }
    models = {
        "no unk_id": unigram,
        "unk_id null": unigram | {"unk_id": None},
        "unk_id 99": unigram | {"unk_id": 99},
        "no unk_token": wordpiece,
        "unk_token not there": wordpiece | {"unk_token": "[UNK]"},
        "unk_token not there, WordLevel": wordpiece | {"type": "WordLevel", "unk_token": "[UNK]"},
    }
    empty = ("truncation", "padding", "normalizer", "post_processor", "decoder")
    split = {"type": "Whitespace"}
    values = {"version": "1.0", "added_tokens": [], "pre_tokenizer": split} | dict.fromkeys(empty)
    return {name: json.dumps(values | {"model": model}).encode() for name, model in models.items()}


def special_files(path):
    """What is no regular file, or too large, in the place of one: name -> a function that makes it."""
    return {
        "pipe": lambda: os.mkfifo(path),
        "directory": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "link to nothing": lambda: path.symlink_to("nothing"),
        "link to itself": lambda: path.symlink_to(path.name),
        "sparse": lambda: (path.touch(), os.truncate(path, 1 << 40)),
    }


# What must come of it -----------------------------------------------------------------------------------------------


def outcome(directory):
    """The lines of the error that loading a directory ends with, or what it loads, and then the model is of use.

    Any other exception is for the test to show.
    """
    try:
        found = load(directory)
    except UserError as error:
        lines = str(error).split("\n")
        assert all(line.isprintable() and len(line) < 2000 for line in lines), lines
        assert all(str(directory) in line for line in lines), lines
        return lines
    assert all(np.isfinite(x).all() for x in leaves(found.params))
    if found.tokenizer:
        ids_n, lengths = found.tokenizer.encode_batch(HARD)
        assert lengths.sum() == len(ids_n)
        assert not ids_n.size or 0 <= ids_n.min() <= ids_n.max() < found.config.vocab_size
    return found


def leaves(tree):
    for value in tree.values():
        yield from leaves(value) if isinstance(value, dict) else [value]
