"""The one schema of a run: frozen dataclasses that are the types, the defaults and the documentation.

A recipe (`configs/*.py`) starts from `default()`, an ml_collections ConfigDict generated from the schema and locked,
and states only what differs. `from_dict` turns it (or saved JSON) back into a `Config` and reports every error at once.
"""

import dataclasses
import difflib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from bertjax.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """The encoder and its heads. One set of numbers describes BERT, ALBERT and DistilBERT."""

    vocab_size: int = 30522  # rows of the word table; the tokenizer must not have more pieces
    num_layers: int = 12
    hidden_size: int = 768
    num_heads: int = 12  # must divide hidden_size
    ffn_size: int = 3072
    embedding_size: int = 768  # below hidden_size the tables are factorised (ALBERT: 128)
    max_positions: int = 512  # rows of the position table
    token_types: int = 2  # rows of the token type table; 0 = no such table (DistilBERT)
    pooler: bool = True  # dense + tanh on [CLS]; the pair head needs it
    pair_head: bool = True  # two logits for NSP or SOP
    share: str = "none"  # which part of a layer is shared across layers: none, attention, ffn, all
    num_groups: int = 1  # distinct copies of the shared part, each used by num_layers / num_groups layers in a row
    activation: str = "gelu_tanh"  # gelu_tanh (Google's BERT and ALBERT), gelu_erf (DistilBERT), relu
    dropout: float = 0.1  # after the embeddings, the attention output and the FFN output
    attention_dropout: float = 0.1  # on the attention probabilities
    attention_output_dropout: bool = True  # False: none after the attention output projection (DistilBERT)
    initializer_range: float = 0.02  # std of the truncated normal, cut at two of it and not rescaled
    layer_norm_eps: float = 1e-12
    dtype: str = "float32"  # compute dtype, float32 or bfloat16; parameters and statistics are always float32
    scan: bool = True  # False unrolls the layers: longer compile, same parameters
    remat: str = "none"  # what the backward pass recomputes: none, dots (all but matrix products), full

    @property
    def copies(self) -> int:
        """Groups of layers: each has its own copy of the shared part. `none` is a group for each layer."""
        return self.num_layers if self.share == "none" else self.num_groups


@dataclass(frozen=True)
class ObjectiveConfig:
    """Coefficient of each term of the loss; 0.0 = off."""

    mlm: float = 1.0  # masked language model
    pair: float = 1.0  # next sentence or sentence order, by data.pair


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it becomes batches."""

    source: str = "builtin"  # "builtin", or paths and glob patterns separated by commas
    format: str = "auto"  # auto, file (a document), paragraphs, sentences (one a line), wikiextractor, jsonl
    text_field: str = "text"  # jsonl: the key that holds the text
    tokenizer: str = ""  # a SentencePiece .model or a WordPiece vocab.txt; "" = WORKDIR/tokenizer/spiece.model
    lower_case: bool = True  # uncased: lower-case and strip accents before tokenising
    prepared: str = ""  # directory of the prepared data set; "" = WORKDIR/data
    prepare_workers: int = 0  # processes of `bertjax prepare`; 0 = one per core; the result is the same
    holdout: float = 0.01  # share of the documents kept for evaluation
    batch_size: int = 256  # rows of a global batch, over all devices and microbatches
    seq_len: int = 128  # length of a row, at most model.max_positions
    pair: str = "nsp"  # how the two segments of an example are made: nsp, sop, none (one segment, no label)
    short_seq_prob: float = 0.1  # share of examples with a random, shorter target length
    mask_rate: float = 0.15  # share of an example's tokens to predict
    max_predictions: int = 20  # prediction slots of a row; more masks than slots are not made
    loader_threads: int = 4  # threads that read and build examples ahead of the device


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: str = "adamw"  # adamw, lamb
    lr: float = 1e-4  # at the end of warm-up
    warmup_steps: int = 10_000  # linear from 0
    power: float = 1.0  # decay lr * (1 - t)^power to 0 at run.steps; 1 = linear, 0 = constant
    shift_decay: bool = False  # False: t = step / steps, as in BERT (lr drops as warm-up ends); True: t from there
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6  # outside the square root
    weight_decay: float = 0.01  # not applied to biases and LayerNorm
    bias_correction: bool = False  # False as in Google's BERT and ALBERT; True as in the Adam paper and NVIDIA's LAMB
    clip_norm: float = 1.0  # global gradient norm after all reductions; 0.0 = off
    accumulate: int = 1  # microbatches of an update; must divide data.batch_size


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh."""

    data: int = 0  # 0 = all devices that the other axes leave
    fsdp: int = 1  # parameters and optimizer state split, gathered for use
    tensor: int = 1  # heads, FFN and vocabulary split


@dataclass(frozen=True)
class RunConfig:
    """Length, seed and rhythm of a run."""

    steps: int = 1_000_000  # optimizer updates
    seed: int = 0  # of initialisation, dropout, data order and masks
    log_every: int = 100  # steps between lines of metrics.jsonl
    eval_every: int = 5_000  # steps between evaluations on held-out documents; 0 = only at the end
    eval_rows: int = 4_096  # held-out rows of an evaluation, or all there are
    save_every: int = 1_000  # steps between checkpoints; 0 = only at the end
    keep: int = 3  # newest checkpoints kept
    tensorboard: bool = False  # also write TensorBoard events; needs the [tb] extra
    peak_tflops: float = 0.0  # of one device, for MFU; 0.0 = look up the device kind, unknown kinds report no MFU


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on."""

    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    run: RunConfig = field(default_factory=RunConfig)


CHOICES = {
    "model.share": ("none", "attention", "ffn", "all"),
    "model.activation": ("gelu_tanh", "gelu_erf", "relu"),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "dots", "full"),
    "data.format": ("auto", "file", "paragraphs", "sentences", "wikiextractor", "jsonl"),
    "data.pair": ("nsp", "sop", "none"),
    "optim.name": ("adamw", "lamb"),
}
"""The allowed values of the fields that are names."""

MINIMUM = {
    "model.vocab_size": 6,
    "model.num_layers": 1,
    "model.hidden_size": 1,
    "model.num_heads": 1,
    "model.ffn_size": 1,
    "model.embedding_size": 1,
    "model.max_positions": 5,
    "model.token_types": 0,
    "model.num_groups": 1,
    "model.initializer_range": 0.0,
    "model.layer_norm_eps": 0.0,
    "objective.mlm": 0.0,
    "objective.pair": 0.0,
    "data.prepare_workers": 0,
    "data.batch_size": 1,
    "data.seq_len": 5,
    "data.max_predictions": 1,
    "data.loader_threads": 1,
    "optim.lr": 0.0,
    "optim.warmup_steps": 0,
    "optim.power": 0.0,
    "optim.eps": 0.0,
    "optim.weight_decay": 0.0,
    "optim.clip_norm": 0.0,
    "optim.accumulate": 1,
    "mesh.data": 0,
    "mesh.fsdp": 1,
    "mesh.tensor": 1,
    "run.steps": 1,
    "run.seed": 0,
    "run.log_every": 1,
    "run.eval_every": 0,
    "run.eval_rows": 1,
    "run.save_every": 0,
    "run.keep": 1,
    "run.peak_tflops": 0.0,
}
"""The smallest allowed value of a number."""

FRACTIONS = (
    "model.dropout",
    "model.attention_dropout",
    "data.holdout",
    "data.short_seq_prob",
    "data.mask_rate",
    "optim.b1",
    "optim.b2",
)
"""Numbers in [0, 1)."""


def default() -> Any:
    """The schema's defaults as a locked ml_collections ConfigDict, for recipes to change."""
    from ml_collections import ConfigDict  # here, so that `bertjax --help` need not import it

    return ConfigDict(dataclasses.asdict(Config())).lock()


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Plain nested dict, as saved in `WORKDIR/config.json`."""
    return dataclasses.asdict(config)


def to_json(config: Config) -> str:
    """The resolved config as indented JSON."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_dict(values: Any) -> Config:
    """Build and validate a `Config` from a ConfigDict or nested dict.

    Raises ConfigError with one line for each unknown section or field, wrong type and impossible value.
    """
    values = values.to_dict() if hasattr(values, "to_dict") else dict(values)
    errors: list[str] = []
    sections = {f.name: f.default_factory for f in dataclasses.fields(Config)}
    _report_unknown("", values, sections, errors)
    built = {name: _section(name, cls, values.get(name, {}), errors) for name, cls in sections.items()}
    config = Config(**built)
    if not errors:
        errors += _range_errors(config)
    if not errors:
        errors += _relation_errors(config)
    if errors:
        raise ConfigError("\n".join(errors))
    return config


def override(config: Config, **sections: dict[str, Any]) -> Config:
    """A validated copy with some fields of some sections replaced: `override(c, run={"steps": 3})`."""
    values = to_dict(config)
    for name, fields in sections.items():
        values[name] = {**values[name], **fields}
    return from_dict(values)


def _report_unknown(prefix: str, values: Any, known: Any, errors: list[str]) -> None:
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"the fields are {', '.join(known)}"
            errors.append(f"{prefix}{name}: there is no such field; {hint}")


def _section(section: str, cls: Any, values: Any, errors: list[str]) -> Any:
    if not hasattr(values, "items"):
        errors.append(f"{section} = {values!r}: must be a section with fields, not a single value")
        return cls()
    fields = {f.name: f for f in dataclasses.fields(cls)}
    _report_unknown(f"{section}.", values, fields, errors)
    typed = {}
    for name, value in values.items():
        if name in fields:
            kind: Any = fields[name].type
            # bool is a subclass of int in Python: `--config.run.steps=True` must not pass as 1.
            is_int = isinstance(value, int) and not isinstance(value, bool)
            if kind is float and is_int:
                value = float(value)
            if type(value) is not kind:
                errors.append(f"{section}.{name} = {value!r}: must be of type {kind.__name__}")
            else:
                typed[name] = value
    return cls(**typed)


def _range_errors(config: Config) -> list[str]:
    def value(path: str) -> Any:
        section, name = path.split(".")
        return getattr(getattr(config, section), name)

    errors = [
        f"{path} = {value(path)!r}: must be one of {', '.join(allowed)}"
        for path, allowed in CHOICES.items()
        if value(path) not in allowed
    ]
    # `not >=` rather than `<`, so that NaN is refused too.
    errors += [
        f"{path} = {value(path)!r}: must be a finite number, at least {least}"
        for path, least in MINIMUM.items()
        if not (value(path) >= least and math.isfinite(value(path)))
    ]
    errors += [
        f"{path} = {value(path)!r}: must be at least 0 and below 1"
        for path in FRACTIONS
        if not 0.0 <= value(path) < 1.0
    ]
    return errors


def _relation_errors(config: Config) -> list[str]:
    m, d, o, r = config.model, config.data, config.optim, config.run
    rules = [
        (
            m.hidden_size % m.num_heads == 0,
            f"model.num_heads = {m.num_heads}: must divide model.hidden_size = {m.hidden_size}",
        ),
        (
            m.num_layers % m.copies == 0,
            f"model.num_groups = {m.num_groups}: must divide model.num_layers = {m.num_layers}",
        ),
        (
            m.share != "none" or m.num_groups == 1,
            f"model.num_groups = {m.num_groups}: needs model.share = attention, ffn or all; set it to 1",
        ),
        (
            m.embedding_size <= m.hidden_size,
            f"model.embedding_size = {m.embedding_size}: must be at most model.hidden_size = {m.hidden_size}",
        ),
        (
            m.token_types != 1 or d.pair == "none",
            "model.token_types = 1: two segments need two; set it to 2, or to 0 for no token types",
        ),
        (r.seed < 2**32, f"run.seed = {r.seed}: must be below 2**32, the width of JAX's seeds"),
        (not m.pair_head or m.pooler, "model.pair_head = True: needs model.pooler = True"),
        (
            config.objective.pair == 0.0 or (m.pair_head and d.pair != "none"),
            f"objective.pair = {config.objective.pair}: needs model.pair_head = True and data.pair = nsp or sop;"
            " set it to 0.0 to train without a pair loss",
        ),
        (
            config.objective.mlm > 0.0 or config.objective.pair > 0.0,
            "objective: every coefficient is 0.0; set objective.mlm to 1.0",
        ),
        (
            d.seq_len <= m.max_positions,
            f"data.seq_len = {d.seq_len}: must be at most model.max_positions = {m.max_positions}",
        ),
        (
            d.max_predictions <= d.seq_len,
            f"data.max_predictions = {d.max_predictions}: must be at most data.seq_len = {d.seq_len}",
        ),
        (
            d.batch_size % o.accumulate == 0,
            f"optim.accumulate = {o.accumulate}: must divide data.batch_size = {d.batch_size}",
        ),
        (
            o.warmup_steps <= r.steps,
            f"optim.warmup_steps = {o.warmup_steps}: must be at most run.steps = {r.steps}",
        ),
        (d.source.strip() != "", "data.source = '': name a file, a pattern or 'builtin'"),
    ]
    return [message for holds, message in rules if not holds]
