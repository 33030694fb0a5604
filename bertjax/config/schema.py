"""The one schema of a run: frozen dataclasses whose fields carry their defaults, meanings and limits; the longest of
them are in `data_fields` and `task_fields`.

A new field is one line here: the type, the command line, the checks by themselves, the listing and the rule about
resuming all follow from it. What relates fields to each other is in `bertjax.config.rules`.
"""

from dataclasses import dataclass, field

from bertjax.config.data_fields import DataConfig
from bertjax.config.limits import PHASE_HAS_BEGUN, by_phase, value
from bertjax.config.task_fields import SweepConfig, TaskConfig


@dataclass(frozen=True)
class ModelConfig:
    """What the encoder and its heads are. BERT, ALBERT, DistilBERT, ModernBERT, NeoBERT and nomic-bert are values."""

    vocab_size: int = value(30522, "rows of the word table, as many as pieces or more", least=6, below=2**24)
    num_layers: int = value(12, "layers of the encoder", least=1, below=2**12)
    hidden_size: int = value(768, "width of the hidden states", least=1, below=2**17)
    num_heads: int = value(12, "attention heads; must divide hidden_size", least=1)
    ffn_size: int = value(3072, "width inside the feed-forward part", least=1, below=2**19)
    embedding_size: int = value(
        768, "width of the tables; below hidden_size they are factorised (ALBERT: 128)", least=1
    )
    max_positions: int = value(512, "most positions of an example; rows of a learned table", least=5, below=2**20)
    positions: str = value(
        "learned",
        "how places are told: learned (a table, added to the words), rotary (queries and keys turned by their place)",
        choices=("learned", "rotary"),
    )
    rotary_base: float = value(10_000.0, "rotary: the longest wave is about 6 times this many positions", least=1)
    rotary_base_local: float = value(0.0, "rotary: the same for local layers; 0.0 = as the others", least=0)
    rotary_pairs: str = value(
        "halves",
        "rotary: which numbers of a head turn together: halves (i and i + D/2), neighbours (2i and 2i + 1)",
        choices=("halves", "neighbours"),
    )
    window: int = value(0, "local layers: a token sees those at most this far from it; 0 = no layer is local", least=0)
    global_every: int = value(3, "window: layers 0, n, 2n, .. are global, all others local", least=1)
    token_types: int = value(2, "rows of the token type table; 0 = no such table (DistilBERT)", least=0, below=2**16)
    heads: tuple[str, ...] = value(
        ("mlm_head", "pooler", "pair_head"),
        "what stands on the encoder: mlm_head, pooler (dense + activation on [CLS]), pair_head (NSP or SOP), classifier"
        " (both need the pooler), tagger (of each token), span_head (start and end of an answer)",
        choices=("mlm_head", "pooler", "pair_head", "classifier", "tagger", "span_head"),
    )
    labels: tuple[str, ...] = value(
        (),
        "names of what the classifier or the tagger tells apart, in the order of its logits; of a classifier that gives"
        " a number, one; of one that chooses an ending, ()",
    )
    pooling: str = value(
        "cls", "what the pooler reads of an example: cls (its [CLS]), mean (of its tokens)", choices=("cls", "mean")
    )
    pooler_activation: str = value(
        "tanh",
        "of the pooler: tanh (BERT, ALBERT, RoBERTa), relu (DistilBERT), gelu_erf (ModernBERT), or another",
        choices=("tanh", "gelu_tanh", "gelu_erf", "relu", "silu"),
    )
    pooler_norm: bool = value(False, "whether a norm follows the pooler's activation (ModernBERT)")
    token_transform: bool = value(
        False, "tagger, span_head: dense, activation and norm, as of the pooler, stand before them (ModernBERT)"
    )
    classifier_dropout: float = value(
        0.1, "before the last map of the classifier, the tagger and the span_head", least=0, below=1
    )
    share: str = value(
        "none", "which part of a layer all layers of a group share", choices=("none", "attention", "ffn", "all")
    )
    num_groups: int = value(
        1, "copies of the shared part, each used by num_layers / num_groups layers in a row", least=1
    )
    activation: str = value(
        "gelu_tanh",
        "of the feed-forward part and the MLM head: gelu_tanh (Google's BERT and ALBERT), gelu_erf, relu, silu",
        choices=("gelu_tanh", "gelu_erf", "relu", "silu"),
    )
    ffn: str = value(
        "plain",
        "W2 act(W1 x), or gated: W3 (act(W1 x) * W2 x), which is GeGLU with gelu and SwiGLU with silu",
        choices=("plain", "gated"),
    )
    norm: str = value(
        "layer",
        "LayerNorm with scale and bias (layer), with the scale alone (layer_no_bias), or RMSNorm (rms)",
        choices=("layer", "layer_no_bias", "rms"),
    )
    norm_place: str = value(
        "post",
        "post: after each sum, as in BERT; pre: before each sub-block, and once after the last layer",
        choices=("post", "pre"),
    )
    first_norm: bool = value(True, "pre: False = none before the first attention, which follows that of the embeddings")
    embedding_norm: bool = value(True, "whether the embeddings are normalised before the first layer")
    biases: str = value(
        "all",
        "which linear maps have one: all, heads (none in the layers), decoder (the last of the MLM head and of"
        " those for labels), none",
        choices=("all", "heads", "decoder", "none"),
    )
    mlm_transform: bool = value(
        True, "MLM head: dense, activation and norm before the decoder; False: the decoder alone"
    )
    tie_words: bool = value(True, "MLM head: decode with the word table; False: with a table of its own")
    dropout: float = value(
        0.1, "after the embeddings, the attention output and the feed-forward output", least=0, below=1
    )
    attention_dropout: float = value(0.1, "of the attention probabilities", least=0, below=1)
    attention_output_dropout: bool = value(True, "False: none after the attention output projection (DistilBERT)")
    initializer_range: float = value(0.02, "std of the truncated normal, cut at two of it and not rescaled", least=0)
    initializer: str = value(
        "constant",
        "constant: that std everywhere; megatron: divided by sqrt(2 num_layers) where a sub-block ends; beside: learned"
        " positions begin as waves, and heads at the words beside (bertjax/model/beside.py)",
        choices=("constant", "megatron", "beside"),
    )
    layer_norm_eps: float = value(1e-12, "added to the variance in LayerNorm", least=0)

    @property
    def apart(self) -> int:
        """Layers before the groups, with parameters of their own: the first where it lacks a norm, else none."""
        return int(not self.first_norm)

    @property
    def copies(self) -> int:
        """Groups of layers: each has its own copy of the shared part. `none` is a group for each layer."""
        return self.num_layers - self.apart if self.share == "none" else self.num_groups

    @property
    def repeats(self) -> int:
        """Layers of a group."""
        return (self.num_layers - self.apart) // self.copies


@dataclass(frozen=True)
class ComputeConfig:
    """How a model is computed. Nothing here changes what it is: a checkpoint is the same whatever these say."""

    dtype: str = value(
        "float32",
        "of activations and products; parameters, statistics and losses are always float32",
        choices=("float32", "bfloat16"),
    )
    attention: str = value(
        "auto",
        "which attention: auto (a rule, bertjax/model/attention.py), reference, xla, cudnn, splash, flash",
        choices=("auto", "reference", "xla", "cudnn", "splash", "flash"),
        may_change=True,
    )
    scan: bool = value(True, "False unrolls the layers: longer compile, same parameters", may_change=True)
    remat: str = value(
        "none",
        "what the backward pass recomputes: none, dots (all but matrix products), full",
        choices=("none", "dots", "full"),
        may_change=True,
    )


@dataclass(frozen=True)
class ObjectiveConfig:
    """Coefficient of each term of the loss; 0.0 = off. Those from `soft` on compare with a teacher (TeacherConfig)."""

    mlm: float = value(1.0, "masked language model", least=0)
    pair: float = value(1.0, "next sentence or sentence order, by data.examples", least=0)
    z: float = value(0.0, "z-loss: the square of log(sum(exp(logits))) of each masked word; 1e-4 in PaLM", least=0)
    soft: float = value(0.0, "KL divergence from the teacher's words at teacher.temperature, times its square", least=0)
    cosine: float = value(0.0, "1 - cosine of hidden states", least=0)
    logit_mse: float = value(0.0, "squared difference of the logits, mean over the vocabulary", least=0)
    hidden_mse: float = value(0.0, "squared difference of hidden states, mean over their width", least=0)


@dataclass(frozen=True)
class TeacherConfig:
    """The model that a run learns from, beside its text, and what of it is compared."""

    path: str = value("", "work directory, also gs://, or Hugging Face directory; '' = no teacher", path=True)
    dtype: str = value("bfloat16", "of its parameters and of what it computes", choices=("float32", "bfloat16"))
    temperature: float = value(2.0, "of soft: both distributions are softmax(logits / temperature)", least=1e-3)
    tokens: str = value(
        "real",
        "which positions soft and logit_mse compare: masked, or all real ones (in chunks; costs more)",
        choices=("masked", "real"),
    )
    layers: tuple[int, ...] = value(
        (),
        "cosine and hidden_mse: the teacher's layer, from 0, for each of the model's (12 and 6: 1,3,5,7,9,11);"
        " () = the last of both",
        least=0,
    )
    projection: int = value(
        0, "width of the teacher's hidden states where it differs: a learned map to it; 0 = none", least=0
    )


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: str = value(
        "adamw",
        "the optimizer: adamw, lamb, stableadamw (a layer's step is cut where its gradient is unusually large), muon"
        " (orthogonal updates of the layers' matrices, adamw for the rest)",
        choices=("adamw", "lamb", "stableadamw", "muon"),
    )
    lr: float = value(1e-4, "at the end of warm-up", least=0)
    warmup_steps: int = value(10_000, "linear from 0", least=0)
    schedule: str = value(
        "power",
        "after warm-up: power (lr * (1 - t)^power), cosine (half a wave), wsd_linear, wsd_sqrt (constant, and over the"
        " last decay_steps down by t or by sqrt(t)); t goes from 0 to 1 at run.steps",
        choices=("power", "cosine", "wsd_linear", "wsd_sqrt"),
    )
    power: float = value(1.0, "schedule = power: 1 = linear, 0 = constant", least=0)
    shift_decay: bool = value(
        False,
        "schedule = power: False: t = step / steps, as in BERT (lr drops as warm-up ends); True: t counts from there",
    )
    # These two move the end of the schedule, as run.steps does, so a run says it when they change.
    decay_steps: int = value(0, "wsd_linear, wsd_sqrt: steps of the decay; 0 = none yet", least=0, may_change=True)
    final_lr: float = value(0.0, "share of lr that is left at run.steps", least=0, below=1, may_change=True)
    b1: float = value(0.9, "decay of the first moment", least=0, below=1)
    b2: float = value(0.999, "decay of the second moment", least=0, below=1)
    momentum: float = value(0.95, "muon: decay of the first moment of the matrices", least=0, below=1)
    eps: float = value(1e-6, "added outside the square root", least=0)
    weight_decay: float = value(0.01, "not applied to biases and LayerNorm", least=0)
    decay_by_lr: bool = value(
        True,
        "a step takes away weight_decay times, True: its rate; False: its rate / lr, as ModernBERT's 1e-5 is meant",
    )
    bias_correction: bool = value(
        False, "False as in Google's BERT and ALBERT; True as in the Adam paper, NVIDIA's LAMB and StableAdamW"
    )
    layer_decay: float = value(
        1.0,
        "rate of a layer: lr times this for each layer above it, and once more for the embeddings; 1.0 = the same",
        least=1e-3,
        below=1.000001,
    )
    freeze: tuple[str, ...] = value(
        (), "parameters that stay as they begin: beginnings of paths, as encoder/embeddings/position"
    )
    ema: float = value(
        0.0,
        "decay of a moving average of the weights: what is then evaluated, exported and begun with; 0.0 = none",
        least=0,
        below=1,
    )
    clip_norm: float = value(1.0, "global gradient norm after all reductions; 0.0 = off", least=0)
    accumulate: int = value(1, "microbatches of an update; must divide data.batch_size", least=1)


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh."""

    data: int = value(0, "rows are split; 0 = all devices that the other axes leave", least=0, may_change=True)
    fsdp: int = value(1, "parameters and optimizer state are split, gathered for use", least=1, may_change=True)
    tensor: int = value(1, "heads, feed-forward part and vocabulary are split", least=1, may_change=True)
    shard_optimizer: bool = value(
        False,
        "optimizer state and update are split over mesh.data too, parameters stay whole there (ZeRO-1)",
        may_change=True,
    )
    reduce_dtype: str = value(
        "float32",
        "in which gradients are sent over mesh.data; before and after they are float32",
        choices=("float32", "bfloat16"),
    )


@dataclass(frozen=True)
class RunConfig:
    """Length, seed and rhythm of a run."""

    # It moves the end of the learning-rate schedule, so a run says it when it changes.
    steps: int = value(1_000_000, "optimizer updates", least=1, may_change=True)
    seed: int = value(0, "of initialisation, dropout, data order and masks", least=0, below=2**32)
    log_every: int = value(100, "steps between lines of metrics.jsonl", least=1, may_change=True)
    eval_every: int = value(
        5_000, "steps between evaluations on held-out documents; 0 = only at the end", least=0, may_change=True
    )
    eval_rows: int = value(4_096, "held-out rows of an evaluation, or all there are", least=1, may_change=True)
    pairs: tuple[str, ...] = value(
        (),
        "also evaluated: minimal pairs, as of `bertjax score`: builtin, files, directories; () = none",
        path=True,
        may_change=True,
    )
    pairs_limit: int = value(50, "pairs of each paradigm, evenly spread; 0 = all", least=0, may_change=True)
    save_every: int = value(1_000, "steps between checkpoints; 0 = only at the end", least=0, may_change=True)
    init_from: str = value("", "work directory or Hugging Face directory whose weights a run starts with", path=True)
    init_layers: tuple[int, ...] = value(
        (), "init_from: its layers to take, from 0; () = evenly spread (12 to 6: 0,2,4,7,9,11)", least=0
    )
    step_timeout: int = value(
        1_800,
        "seconds after which a step, a batch or a save that does not end is taken for a hang: exit code 6; 0 = never",
        least=0,
        may_change=True,
    )
    skip_limit: int = value(
        5,
        "updates skipped in a row, their loss or gradient not being finite, before the run goes back to its last"
        " checkpoint, once, with other data; 0 = none is skipped, the run ends at the first",
        least=0,
        may_change=True,
    )
    keep: int = value(3, "newest checkpoints kept", least=1, may_change=True)
    keep_best: str = value(
        "",
        "a number of an evaluation, as in metrics.jsonl (eval_mlm_loss): the checkpoint with the best is kept too, of a"
        " loss the least, of any other the largest; '' = none",
        may_change=True,
    )
    tensorboard: bool = value(False, "also write TensorBoard events; needs the [tb] extra", may_change=True)
    peak_tflops: float = value(
        0.0,
        "of one device, for MFU; 0.0 = look up the device kind, unknown kinds report no MFU",
        least=0,
        may_change=True,
    )


_OWN_COURSE = ", which then goes over its steps to its final one"
_OWN_SCHEDULE = ", which then has a schedule of its own over its steps"


@dataclass(frozen=True)
class PhasesConfig:
    """What changes on the way through a run, with a value for each phase (`bertjax.config.phases`)."""

    steps: tuple[int, ...] = value(
        (),
        "updates of each phase, together run.steps; () = the run is one phase",
        least=1,
        may_change=True,
        until=PHASE_HAS_BEGUN,
    )
    seq_len: tuple[int, ...] = by_phase("data", DataConfig, "seq_len")
    batch_size: tuple[int, ...] = by_phase("data", DataConfig, "batch_size")
    packing: tuple[int, ...] = by_phase("data", DataConfig, "packing")
    max_predictions: tuple[int, ...] = by_phase("data", DataConfig, "max_predictions")
    mask_rate: tuple[float, ...] = by_phase("data", DataConfig, "mask_rate", _OWN_COURSE)
    final_mask_rate: tuple[float, ...] = by_phase("data", DataConfig, "final_mask_rate", _OWN_COURSE)
    mask_count: tuple[int, ...] = by_phase("data", DataConfig, "mask_count")
    lr: tuple[float, ...] = by_phase("optim", OptimConfig, "lr", _OWN_SCHEDULE)
    warmup_steps: tuple[int, ...] = by_phase("optim", OptimConfig, "warmup_steps", _OWN_SCHEDULE)
    schedule: tuple[str, ...] = by_phase("optim", OptimConfig, "schedule", _OWN_SCHEDULE)
    power: tuple[float, ...] = by_phase("optim", OptimConfig, "power", _OWN_SCHEDULE)
    decay_steps: tuple[int, ...] = by_phase("optim", OptimConfig, "decay_steps", _OWN_SCHEDULE)
    final_lr: tuple[float, ...] = by_phase("optim", OptimConfig, "final_lr", _OWN_SCHEDULE)
    accumulate: tuple[int, ...] = by_phase("optim", OptimConfig, "accumulate")
    remat: tuple[str, ...] = by_phase("compute", ComputeConfig, "remat")


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on."""

    model: ModelConfig = field(default_factory=ModelConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    run: RunConfig = field(default_factory=RunConfig)
    phases: PhasesConfig = field(default_factory=PhasesConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
