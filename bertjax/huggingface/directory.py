"""Model directories of Hugging Face transformers, in and out: config.json, model.safetensors, tokenizer files, card.

Reading: every name and shape must be what config.json asks for (`bertjax.huggingface.names`), before any tensor is loaded
(`bertjax.huggingface.safetensors`). A matrix is [out, in] there and kernel[in..., out...] here; the layers are tensors of their own
there and stacked on the first axis here.
"""

import dataclasses
import functools
import json
import math
import os
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
import tokenizers
from flax.traverse_util import flatten_dict, unflatten_dict
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors

from bertjax.huggingface import names as families, safetensors as foreign
from bertjax.config.schema import ModelConfig
from bertjax.data.tokenizer import Tokenizer
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import CheckpointError, DataError, StorageError
from bertjax.huggingface.names import POSITION, TO_HIDDEN
from bertjax.model.network import abstract_params

Flat = dict[str, np.ndarray]
"""Parameters by path: "encoder/groups/ffn/up/kernel"."""


@dataclass(frozen=True)
class Imported:
    """A model read from a directory."""

    model: ModelConfig  # pooler and pair_head are off where the directory has none
    params: dict[str, Any]  # float32 NumPy, the tree of `bertjax.model.network.Pretrainer`
    fresh: tuple[str, ...]  # parts of the architecture that the directory does not hold; an mlm_head is initialised
    classifier: Flat | None  # head of *ForSequenceClassification, in the names and layout of transformers
    family: str
    tokenizer: Path | None  # vocab.txt or spiece.model; tokenizer.json if there is neither
    lower_case: bool  # what tokenizer_config.json says of it; True if nothing; a tokenizer.json says it itself


@dataclass(frozen=True)
class Slot:
    """The tensors that a parameter is stored as: their names without prefix, and the shape of each."""

    names: list[str]
    shape: tuple[int, ...]


def read(directory: Path) -> Imported:
    """The model in `directory`: a BERT, RoBERTa, ALBERT or DistilBERT with any of its heads.

    Raises CheckpointError for a directory that is damaged, of another architecture, or whose weights and config.json do
    not belong together; everything that is wrong with the names is in one error.
    """
    path = directory / "config.json"
    values = foreign.read_json(path)
    family = values.get("model_type")
    if family not in families.FAMILIES:
        known = ", ".join(families.FAMILIES)
        raise CheckpointError(f"{path}: model_type = {family!r:.60}: must be one of {known}")
    model, first_position = families.from_json(path, family, values)
    stored: dict[str, list[foreign.Tensor]] = {}
    for tensor in foreign.tensors(directory):
        stored.setdefault(families.plain_name(family, tensor.name), []).append(tensor)

    layout = _layout(family, model, first_position)
    parts = {_part(path) for path in layout}
    present = {_part(path) for path, slot in layout.items() if slot.names[0] in stored} | {"encoder"}
    if "pair_head" in present:
        present.add("pooler")  # which it needs: if it is not there, it is missed
    layout = {path: slot for path, slot in layout.items() if _part(path) in present}
    classifier = _classifier(family, model, stored)
    _check_names(directory, stored, [*layout.values(), *classifier])

    model = dataclasses.replace(model, pooler="pooler" in present, pair_head="pair_head" in present)
    flat = {path: np.stack([foreign.load(stored[name]) for name in slot.names]) for path, slot in layout.items()}
    shapes = _shapes(model)
    if f"{TO_HIDDEN}/kernel" not in shapes:
        _drop_identity(directory, flat)
    flat = {path: _ours(path, x, first_position, shapes[path]) for path, x in flat.items()}
    fresh = tuple(part for part in ("mlm_head", "pooler", "pair_head") if part in parts - present)
    if "mlm_head" in fresh:
        flat |= _fresh_mlm_head(model, shapes)
    heads = {slot.names[0]: foreign.load(stored[slot.names[0]]) for slot in classifier}
    return Imported(model, unflatten_dict(flat, sep="/"), fresh, heads or None, family, *_tokenizer_of(directory))


def write(
    directory: Path, model: ModelConfig, params: Any, *, tokenizer: Path | None, lower_case: bool, card: dict[str, Any]
) -> None:
    """Write a model for transformers' `from_pretrained`, whole or not at all; `directory` must be new or empty.

    The family follows from the structure (`families.choose`). Sharing that it does not have is undone, each layer
    getting a copy of its own, and the card says so. `card` is shown in the card as a table; it is public.

    Raises ConfigError naming a field that no family can hold, CheckpointError for parameters of another model,
    DataError for the tokenizer, StorageError where it cannot write.
    """
    directory = directory.absolute()
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise StorageError(f"{directory}: exists and is not an empty directory; delete it or name another")
    family = families.choose(model)
    loaded = load_tokenizer(tokenizer, lower_case=lower_case) if tokenizer else None
    if loaded and loaded.vocab_size > model.vocab_size:
        raise DataError(f"{tokenizer}: has {loaded.vocab_size} pieces, more than model.vocab_size = {model.vocab_size}")
    held, flat = _held(family, model, params)
    pad = loaded.special.pad if loaded else families.PAD[families.FAMILIES.index(family)]
    values, files = families.to_json(family, held, pad), {}
    if tokenizer and loaded:
        values |= {"bos_token_id": loaded.special.cls, "eos_token_id": loaded.special.sep}
        files = _tokenizer_files(tokenizer, loaded, held, lower_case)
    card_text = _card(values, families.notes(family, model, held), card, bool(tokenizer))
    files |= {"config.json": _json(values), "README.md": card_text.encode()}
    tensors = _theirs(family, held, flat, families.first_position(family, pad))
    files[foreign.WEIGHTS] = safetensors.numpy.save(tensors, {"format": "pt"})

    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        for name, content in files.items():
            (partial / name).write_bytes(content)
        partial.replace(directory)
    except OSError as error:
        raise StorageError(f"{directory}: cannot be written ({error.strerror}); check disk and permissions") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# Parameters ---------------------------------------------------------------------------------------------------------


def _part(path: str) -> str:
    return path.partition("/")[0]


@functools.cache
def _shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of a model; nothing is allocated."""
    return {path: x.shape for path, x in flatten_dict(abstract_params(model), sep="/").items()}


def _layout(family: str, model: ModelConfig, first_position: int) -> dict[str, Slot]:
    """Where each parameter of a model that shares nothing, or whole layers, is stored."""
    names, shapes, layout = families.names(family), dict(_shapes(model)), {}
    if TO_HIDDEN in names:  # also where the two sizes are equal
        shapes[f"{TO_HIDDEN}/kernel"] = (model.embedding_size, model.hidden_size)
        shapes[f"{TO_HIDDEN}/bias"] = (model.hidden_size,)
    for path, shape in shapes.items():
        module, _, leaf = path.rpartition("/")
        stacked = path.startswith("encoder/groups/")
        there = shape[stacked:]
        if leaf == "kernel":
            out = math.prod(shapes[f"{module}/bias"][stacked:])
            there = (out, math.prod(there) // out)
        elif leaf == "bias":
            there = (math.prod(there),)
        elif path == POSITION:
            there = (there[0] + first_position, there[1])
        name = names.get(path) or f"{names[module]}.{'bias' if leaf == 'bias' else 'weight'}"
        layout[path] = Slot([name.format(i) for i in range(shape[0] if stacked else 1)], there)
    return layout


def _ours(path: str, x: np.ndarray, first_position: int, shape: tuple[int, ...]) -> np.ndarray:
    """Stacked tensors, [copies, ...], as the parameter of this shape."""
    if path == POSITION:
        x = x[:, first_position:]
    if path.endswith("/kernel"):
        x = x.swapaxes(1, 2)
    return np.ascontiguousarray(x.reshape(shape))


def _theirs(family: str, model: ModelConfig, flat: Flat, first_position: int) -> Flat:
    """Tensors by their names there, as `_layout` has them."""
    found: Flat = {}
    for path, slot in _layout(family, model, first_position).items():
        x = flat[path]
        if path == POSITION:
            x = np.pad(x, ((first_position, 0), (0, 0)))  # rows of padding, which attention never sees
        if path.endswith("/kernel"):
            x = x.reshape(len(slot.names), *slot.shape[::-1]).swapaxes(1, 2)
        x = x.reshape(len(slot.names), *slot.shape)
        prefix = "" if _part(path) in ("mlm_head", "pair_head") else f"{family}."
        found |= {prefix + name: np.ascontiguousarray(one) for name, one in zip(slot.names, x, strict=True)}
    return found


def _held(family: str, model: ModelConfig, params: Any) -> tuple[ModelConfig, Flat]:
    """The same function as this family has it: no sharing but ALBERT's, and the identity for its product of E = H."""
    flat = {path: np.asarray(x, np.float32) for path, x in flatten_dict(params, sep="/").items()}
    shapes = _shapes(model)
    if wrong := sorted(p for p in shapes.keys() | flat.keys() if p not in flat or flat[p].shape != shapes.get(p)):
        raise CheckpointError(f"params: {', '.join(wrong[:10])}: missing, unknown or of another shape for this model")
    if TO_HIDDEN in families.names(family) and model.embedding_size == model.hidden_size:
        flat |= {f"{TO_HIDDEN}/kernel": np.eye(model.hidden_size, dtype=np.float32)}
        flat |= {f"{TO_HIDDEN}/bias": np.zeros(model.hidden_size, np.float32)}
    if model.share == "none" or (model.share == "all" and families.has(family, "num_groups")):
        return model, flat
    repeats, whole = model.num_layers // model.copies, {}
    for path, x in flat.items():
        if path.startswith("encoder/groups/layers/"):
            whole[path.replace("/layers/", "/")] = x.reshape(-1, *x.shape[2:])
        else:
            whole[path] = np.repeat(x, repeats, axis=0) if path.startswith("encoder/groups/") else x
    return dataclasses.replace(model, share="none", num_groups=1), whole


def _drop_identity(directory: Path, flat: Flat) -> None:
    """ALBERT has this product also where the two sizes are equal; this model does not, so it must do nothing."""
    kernel, bias = (flat.pop(f"{TO_HIDDEN}/{leaf}", None) for leaf in ("kernel", "bias"))
    if kernel is not None and bias is not None and (bias.any() or not np.array_equal(kernel[0], np.eye(bias.size))):
        raise CheckpointError(
            f"{directory}: encoder.embedding_hidden_mapping_in is not the identity: a product between embeddings and"
            " layers of one size has no place in bertjax.model.network, so this model cannot be read"
        )


def _fresh_mlm_head(model: ModelConfig, shapes: dict[str, tuple[int, ...]]) -> Flat:
    """As a new model has it; always the same."""
    draw = jax.nn.initializers.truncated_normal(model.initializer_range)
    flat = {path: np.zeros(shape, np.float32) for path, shape in shapes.items() if _part(path) == "mlm_head"}
    flat["mlm_head/norm/scale"] += 1
    kernel = "mlm_head/dense/kernel"
    return flat | {kernel: np.array(draw(jax.random.key(0), flat[kernel].shape, np.float32))}


# Names --------------------------------------------------------------------------------------------------------------


def _classifier(family: str, model: ModelConfig, stored: dict[str, list[foreign.Tensor]]) -> list[Slot]:
    """The tensors of the head for classifying sequences, if there is one."""
    H, layers = model.hidden_size, families.CLASSIFIERS[families.FAMILIES.index(family)]
    bias = stored.get(f"{layers[-1]}.bias")
    labels = bias[0].shape[0] if bias and bias[0].shape else 1
    slots = []
    for layer in layers:
        rows = labels if layer == layers[-1] else H
        slots += [Slot([f"{layer}.weight"], (rows, H)), Slot([f"{layer}.bias"], (rows,))]
    return slots if any(slot.names[0] in stored for slot in slots) else []


def _check_names(directory: Path, stored: dict[str, list[foreign.Tensor]], slots: list[Slot]) -> None:
    """Refuse, in one error, every tensor that is missing, unknown or of another shape than its slot."""
    shapes = {name: slot.shape for slot in slots for name in slot.names}
    problems = [f"{name} is missing" for name in shapes if name not in stored]
    for name, copies in stored.items():
        for tensor in copies if name not in families.BUFFERS else []:
            if name not in shapes:
                problems.append(f"{tensor.name!r:.80} is unknown")
            elif tensor.shape != shapes[name] or tensor.dtype not in foreign.DTYPES:
                wanted = f"{list(shapes[name])} of {', '.join(foreign.DTYPES)}"
                problems.append(f"{tensor.name} is {list(tensor.shape)} of {tensor.dtype}, not {wanted}")
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise CheckpointError(
            f"{directory}: the weights are not those of config.json: {'; '.join(problems[:10])}{more};"
            " take both from one source"
        )


# The other files ----------------------------------------------------------------------------------------------------


def _tokenizer_of(directory: Path) -> tuple[Path | None, bool]:
    settings = directory / "tokenizer_config.json"
    lower_case = not settings.exists() or foreign.read_json(settings).get("do_lower_case") is not False
    files = (directory / name for name in ("vocab.txt", "spiece.model", "tokenizer.json"))
    return next((file for file in files if file.is_file()), None), lower_case


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def _tokenizer_files(source: Path, loaded: Tokenizer, model: ModelConfig, lower_case: bool) -> dict[str, bytes]:
    """tokenizer.json, tokenizer_config.json and the vocabulary: the ids of `loaded`, but a special piece typed in a
    text is that id. A byte-level BPE remains the file that it was where RoBERTa's class builds the same from it and the
    model has no pairs, of which RoBERTa has another layout.
    """
    special = dataclasses.asdict(loaded.special)
    pieces = {name: loaded.pieces[index] for name, index in special.items()}
    cls, sep, second = pieces["cls"], pieces["sep"], int(model.token_types > 1)
    settings = {
        "model_max_length": model.max_positions,
        "model_input_names": ["input_ids", *(["token_type_ids"] if second else []), "attention_mask"],
    } | {f"{name}_token": piece for name, piece in pieces.items()}
    content = source.read_bytes()
    if source.suffix == ".json":
        fast, files = tokenizers.Tokenizer.from_str(content.decode()), {}
        split, pairs = fast.pre_tokenizer, second or model.pair_head
        if not pairs and fast.normalizer is None and isinstance(split, pre_tokenizers.ByteLevel) and split.use_regex:
            settings |= {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": split.add_prefix_space}
            settings |= {"bos_token": cls, "eos_token": sep}
            return {"tokenizer.json": content, "tokenizer_config.json": _json(settings)}
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    elif source.suffix == ".model":
        fast, files = _unigram(source, content, lower_case), {"spiece.model": content}
        # AlbertTokenizer would build another from spiece.model; this class takes tokenizer.json as it is.
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": lower_case}
    else:
        fast, files = _wordpiece(loaded, lower_case), {"vocab.txt": content}
        settings |= {"tokenizer_class": "BertTokenizer", "do_lower_case": lower_case, "strip_accents": lower_case}
    fast.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:{second} {sep}:{second}",
        special_tokens=[(cls, special["cls"]), (sep, special["sep"])],
    )
    fast.add_special_tokens([tokenizers.AddedToken(piece, special=True, normalized=False) for piece in pieces.values()])
    return files | {"tokenizer.json": fast.to_str().encode(), "tokenizer_config.json": _json(settings)}


def _wordpiece(loaded: Tokenizer, lower_case: bool) -> tokenizers.Tokenizer:
    """The same as `loaded`; transformers' slow tokenizer alone has another lower case of a Greek sigma at word ends."""
    vocabulary = {piece: index for index, piece in enumerate(loaded.pieces)}
    fast = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(strip_accents=lower_case, lowercase=lower_case)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.decoder = decoders.WordPiece()
    return fast


def _unigram(source: Path, content: bytes, lower_case: bool) -> tokenizers.Tokenizer:
    """ALBERT's normalisation, the model's own, and its pieces with scores that make up for what cannot be said.

    A user-defined piece always wins in SentencePiece, by this score. Two differences from `loaded` are left, in 12 of
    337,577 lines of English with ALBERT's vocabulary:

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
        steps.append(normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    steps += [normalizers.Replace(Regex(" +"), " "), normalizers.Strip(left=False, right=True)]
    fast = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, proto.trainer_spec.unk_id, False))
    fast.normalizer = normalizers.Sequence(steps)
    # "first": what follows a special piece in a text without a space does not begin a word.
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    fast.decoder = decoders.Metaspace(prepend_scheme="first")
    return fast


def _card(values: dict[str, Any], notes: list[str], card: dict[str, Any], tokenizer: bool) -> str:
    """A model card in Markdown. Every value stands in a code span, where nothing in it is markup."""

    def span(value: Any) -> str:
        text = "".join(c for c in " ".join(str(value).split()) if c.isprintable())
        return "`" + (text.replace("`", "'").replace("|", "\\|") or " ") + "`"

    (architecture,) = values["architectures"]
    lines = ["---", "library_name: transformers", "pipeline_tag: fill-mask", "tags:", "- bertjax"]
    lines += [f"- {values['model_type']}", "---", "", f"# {architecture}", ""]
    lines += ["Pretrained with bertjax, a JAX code base for BERT, ALBERT and DistilBERT. To load it:", "", "```python"]
    for name in [architecture] + ["AutoTokenizer"] * tokenizer:
        lines.append(f'transformers.{name}.from_pretrained("this directory")')
    lines += ["```", "", *(f"- {note}" for note in notes), ""]
    rows = [f"| {span('.'.join(map(str, path)))} | {span(value)} |" for path, value in flatten_dict(card).items()]
    return "\n".join(lines + ["| | |", "|---|---|"] * bool(rows) + rows)
