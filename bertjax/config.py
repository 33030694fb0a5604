"""The one schema of a run: frozen dataclasses that are the types, the defaults and the documentation.

A recipe (`configs/*.py`) starts from `default()`, an ml_collections ConfigDict generated from the schema and locked,
and states only what differs. `from_dict` turns it (or saved JSON) back into a `Config` and reports every error at once.
"""

import dataclasses
import difflib
import json
from dataclasses import dataclass, field
from typing import Any

from bertjax import rules
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
    attention: str = "auto"  # what computes it: auto (a rule, bertjax/attention.py), reference, xla, cudnn, splash
    dtype: str = "float32"  # compute dtype, float32 or bfloat16; parameters and statistics are always float32
    scan: bool = True  # False unrolls the layers: longer compile, same parameters
    remat: str = "none"  # what the backward pass recomputes: none, dots (all but matrix products), full

    @property
    def copies(self) -> int:
        """Groups of layers: each has its own copy of the shared part. `none` is a group for each layer."""
        return self.num_layers if self.share == "none" else self.num_groups


@dataclass(frozen=True)
class ObjectiveConfig:
    """Coefficient of each term of the loss; 0.0 = off. Those from `soft` on compare with a teacher (TeacherConfig)."""

    mlm: float = 1.0  # masked language model
    pair: float = 1.0  # next sentence or sentence order, by data.examples
    soft: float = 0.0  # KL divergence from the teacher's words at teacher.temperature, times its square
    cosine: float = 0.0  # 1 - cosine of hidden states
    logit_mse: float = 0.0  # squared difference of the logits, mean over the vocabulary
    hidden_mse: float = 0.0  # squared difference of hidden states, mean over their width


@dataclass(frozen=True)
class TeacherConfig:
    """The model that a run learns from, beside its text, and what of it is compared."""

    path: str = ""  # work directory or Hugging Face directory; "" = no teacher
    dtype: str = "bfloat16"  # of its parameters and of what it computes, float32 or bfloat16
    temperature: float = 2.0  # of soft: both distributions are softmax(logits / temperature)
    tokens: str = "real"  # which positions soft and logit_mse compare: masked, or all real ones (in chunks; costs more)
    layers: str = "last"  # which layers cosine and hidden_mse compare: last, every (12 and 6: 1,3,5,7,9,11), or a list
    projection: int = 0  # width of the teacher's hidden states where it differs: a learned map to it; 0 = none


@dataclass(frozen=True)
class DataConfig:
    """Where the text comes from and how it becomes batches."""

    source: str = "builtin"  # "builtin", or paths, glob patterns and tfds:NAME[SPLIT] separated by commas
    mix: str = ""  # shares of the rows for the entries of source, as "0.7,0.3"; "" = as much as each holds
    format: str = "auto"  # auto, file (a document), paragraphs, sentences (one a line), wikiextractor, jsonl, parquet
    text_field: str = "text"  # jsonl, parquet, tfds: the field that holds the text
    tokenizer: str = ""  # a .model, vocab.txt or tokenizer.json (tokenizer.load); "" = WORKDIR/tokenizer/spiece.model
    lower_case: bool = True  # uncased: lower-case and strip accents before tokenising
    prepared: str = ""  # directory of the prepared data set; "" = WORKDIR/data
    prepare_workers: int = 0  # processes of `bertjax prepare`; 0 = one per core; the result is the same
    holdout: float = 0.01  # share of the documents kept for evaluation
    batch_size: int = 256  # rows of a global batch, over all devices and microbatches
    seq_len: int = 128  # length of a row, at most model.max_positions
    examples: str = "nsp"  # nsp, sop (two segments, a label), full_sentences, doc_sentences (one segment, no label)
    short_seq_prob: float = 0.1  # nsp, sop: share of examples with a random, shorter target length
    original_flaws: bool = False  # nsp, sop: as the released code makes them, leaks included (data/original.py)
    packing: int = 1  # most examples in a row; 1 = each in a row of its own
    buckets: str = ""  # row lengths, as "128,256,512": a batch takes the least that holds its examples; "" = seq_len
    masking: str = "token"  # what is chosen as a whole: token, whole_word, ngram (of whole words)
    max_ngram: int = 3  # masking = ngram: n words with probability proportional to 1/n, n up to this
    mask_rate: float = 0.15  # share of an example's tokens to predict
    mask_count: int = 0  # tokens of an example to predict, instead of the rate; 0 = by mask_rate
    mask_smoothing: float = 0.0  # masking = token: chosen in proportion to count^-mask_smoothing (DistilBERT: 0.7)
    mask_together: bool = False  # True: 80 % [MASK], 10 % random, 10 % kept is drawn for each word or n-gram as a whole
    max_predictions: int = 20  # prediction slots of a row; more masks than slots are not made
    loader_threads: int = 4  # threads that read and build batches ahead of the device, in each process
    loader_workers: int = 0  # processes that do it; 0 = threads of the main process

    @property
    def pairs(self) -> bool:
        """Whether examples have two segments and a label."""
        return self.examples in ("nsp", "sop")

    @property
    def row_lengths(self) -> tuple[int, ...]:
        """The lengths that rows can have, ascending; the last is `seq_len`."""
        return tuple(int(part) for part in self.buckets.split(",")) if self.buckets else (self.seq_len,)

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares of `mix`; none if it is empty."""
        return tuple(float(part) for part in self.mix.split(",")) if self.mix else ()


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
    freeze: str = ""  # parameters that stay as they begin: beginnings of paths, as "encoder/embeddings/position"
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
    init_from: str = ""  # work directory or Hugging Face directory whose weights a new run starts with
    init_layers: str = "spread"  # init_from: its layers to take: spread (12 to 6: 0,2,4,7,9,11), first, second, "0,3,5"
    keep: int = 3  # newest checkpoints kept
    tensorboard: bool = False  # also write TensorBoard events; needs the [tb] extra
    peak_tflops: float = 0.0  # of one device, for MFU; 0.0 = look up the device kind, unknown kinds report no MFU


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on."""

    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    run: RunConfig = field(default_factory=RunConfig)


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
    errors = errors or rules.errors(config)
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
