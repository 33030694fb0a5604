"""A model of your own from 1 to 100 MB of text: its sizes follow from the text, the machine and the time.

Expect     docs/results.md: what 3 MB give in minutes. context_gain above 0: the words around a masked word are used.
Hardware   2 CPU cores or more, a GPU or a TPU.
Command    bertjax tokenizer --config=small --workdir=runs/mine --config.data.source='my_text/*.txt'
           and then `bertjax prepare` and `bertjax pretrain` with --workdir alone.

The argument is how long training may take, as 25m (the default) or 2h; a small text is learnt in less. The first
command says what was chosen, and why, and the directory remembers it. What the command line gives stays as given, and
the rest follows it. The structure is that of the entry `modern` of configs/speedrun.py without its second segment:
nomic-bert, trained with Muon.
"""

import math
import re
from pathlib import Path

from bertjax.config.recipe import default, unchecked
from bertjax.config.structure import modern

SIZES = ((4, 128), (6, 192), (6, 256), (8, 384), (12, 512))
"""Layers and their width. Heads are 64 wide, the feed-forward part 8/3 of the width."""
PER_TOKEN = 4
"""Parameters of the layers for a token of the text, at most."""
SEEN = 10
"""Tokens that the layers alone could see in the time for each of their parameters, at least."""
EPOCHS = 40
"""Passes over the text, at most: with more it would be learnt by heart."""
UPDATES = 2_500
"""Of a run, roughly; its steps see from 2,048 to 32,768 tokens."""


def get_config(time="25m"):
    """The recipe for so much time, before a text is known."""
    _seconds(time)
    config = default()
    modern(config, num_layers=SIZES[0][0], hidden_size=SIZES[0][1])
    config.model.update(token_types=1, heads=("mlm_head",))
    config.objective.pair = 0.0
    config.data.update(examples="doc_sentences", batch_size=64, seq_len=64)
    config.optim.update(name="muon", bias_correction=True, b2=0.98, schedule="wsd_sqrt")
    config.run.eval_rows = 1_024
    return config


def fit(config, given, time="25m"):
    """Set what is not `given` by the text of `data.source` and this machine; returns what was chosen, and why."""
    from bertjax.parallel import machine
    from bertjax.report.survey import survey

    data = unchecked(config).data
    if data.by_rule:
        name = "ids" if data.format == "ids" else data.alphabet
        raise ValueError(f"is for words; for {name} there is configs/sequences.py:{name}")
    fitting = _Fitting(config, given, survey(data), machine.here(), _seconds(time))
    steps = fitting.text, fitting.vocabulary, fitting.held_out, fitting.rows, fitting.model, fitting.training
    return [step() for step in steps]


class _Fitting:
    """Each method sets fields that follow from the text, the machine and those set before, and says so in a line."""

    def __init__(self, config, given, text, machine, seconds):
        self.config, self.given, self.found, self.machine, self.seconds = config, given, text, machine, seconds

    def text(self):
        text, rest = self.found, "" if self.found.whole else "; the rest was not looked at"
        told = f"{text.documents:,} documents, {text.characters / 1e6:,.1f} million characters"
        return f"text        {told}, about {_rounded(text.tokens)} tokens{rest}"

    def vocabulary(self):
        path, pieces = Path(self.config.data.tokenizer).expanduser(), self.found.pieces
        why = f"one occurs {self.found.tokens // pieces} times on average"
        if self.config.data.tokenizer and path.exists():
            from bertjax.data.tokenizer import load

            pieces, why = len(load(path, lower_case=None).pieces), f"as {path} has"
        self._set("model", vocab_size=pieces)
        return f"vocabulary  {self.config.model.vocab_size:,} pieces" + self._why("model.vocab_size", why)

    def held_out(self):
        share = max(50 / self.found.documents, 50_000 / self.found.tokens, 0.01)
        self._set("data", holdout=round(min(share, 0.1), 3))
        share, why = self.config.data.holdout, "from 1 % of a large text to 10 % of a small one"
        told = f"{share:.1%} of the documents, about {_rounded(share * self.found.tokens)} tokens"
        return f"held out    {told}" + self._why("data.holdout", why)

    def rows(self):
        on_cpu, documents = self.machine.platform == "cpu", self.found.typical_tokens
        longest = 256 if not on_cpu else 128 if self.seconds >= 3_600 else 64
        self._set("data", seq_len=min(longest, 2 ** math.ceil(math.log2(max(documents, 64)))))
        length = self.config.data.seq_len
        self._set("model", max_positions=length)
        self._set("data", packing=min(8, length // 5), max_predictions=min(math.ceil(0.15 * length) + 2, length))
        why = f"half of the text is in documents of {_rounded(documents)} tokens or more"
        why += f"; the {self.machine.platform} has no time for longer ones" if longest < documents else ""
        return f"rows        {length} tokens" + self._why("data.seq_len", why)

    def model(self):
        self._set("compute", dtype="bfloat16" if self.machine.bfloat16 else "float32")
        chosen, why = SIZES[0], "the least that learns"
        for size in SIZES[1:]:
            self._set("model", **_layers(*size))
            parameters = self._parameters()
            if parameters > PER_TOKEN * self.found.tokens:
                why = "a larger one is for more text"
                break
            if parameters * SEEN * 6 * parameters > self.seconds * self._speed():
                why = "a larger one is for more time"
                break
            chosen, why = size, "the largest of this recipe"
        self._set("model", **_layers(*chosen))
        model = self.config.model
        self._set("model", initializer_range=round(0.05 * math.sqrt(128 / model.hidden_size), 3))
        millions = (self._parameters() + model.vocab_size * model.embedding_size) / 1e6
        told = f"{model.num_layers} layers of {model.hidden_size}, {millions:.1f} million parameters"
        return f"model       {told}" + self._why("model.hidden_size", why)

    def training(self):
        self._batch()
        model, data, optim, run = (self.config[name] for name in ("model", "data", "optim", "run"))
        tokens, text = data.batch_size * data.seq_len, self.found.tokens * (1 - data.holdout)
        self._set("run", steps=max(1, round(min(self._seen(), EPOCHS * text) / tokens)))
        epochs = run.steps * tokens / text
        self._set("model", dropout=0.1 if epochs > 10 else 0.0)
        self._set("optim", lr=round(3e-3 * math.sqrt(128 / model.hidden_size), 5), warmup_steps=run.steps * 2 // 25)
        if optim.schedule.startswith("wsd"):
            self._set("optim", decay_steps=min(run.steps * 3 // 5, max(run.steps - optim.warmup_steps, 0)))
        often = max(1, run.steps // 5)
        self._set("run", log_every=max(1, run.steps // 50), eval_every=often, save_every=often)
        minutes = max(1, round(run.steps * tokens / self._seen() * self.seconds / 60))
        place = f"{self.machine.devices} {self.machine.kind}"
        place = f"{self.machine.cores} CPU cores" if self.machine.platform == "cpu" else place
        told = f"{run.steps:,} steps of {data.batch_size} rows, {epochs:.{int(epochs < 10)}f} times over the text"
        return f"training    {told}: roughly {minutes} minute{'s' * (minutes > 1)} on {place}"

    def _batch(self):
        """Set the rows of a step, and in how many parts they fit into half of the memory, for there is more to it."""
        from bertjax.bench.estimate import step_bytes

        tokens = min(self._seen(), EPOCHS * self.found.tokens) / UPDATES
        rows = 2 ** round(math.log2(min(max(tokens, 2_048), 32_768) / self.config.data.seq_len))
        devices, parts = self.machine.devices, 1
        while True:
            self._set("optim", accumulate=parts)
            ways = devices * self.config.optim.accumulate
            self._set("data", batch_size=math.ceil(rows / ways) * ways)
            enough = step_bytes(unchecked(self.config), devices) <= self.machine.memory / 2
            if enough or not self.machine.memory or self.config.data.batch_size % (2 * parts * devices):
                return
            parts *= 2

    def _set(self, section, **values):
        for name, value in values.items():
            if f"{section}.{name}" not in self.given:
                self.config[section][name] = value

    def _why(self, field, why):
        return " (as given)" if field in self.given else f" ({why})"

    def _parameters(self):
        """Of the layers."""
        from bertjax.model.cost import flops_per_token

        return flops_per_token(unchecked(self.config).model, 1, predicted=0.0)["encoder"] / 6

    def _speed(self):
        """Model FLOPs a second."""
        from bertjax.bench.estimate import flops_a_second

        return flops_a_second(unchecked(self.config), self.machine)

    def _seen(self):
        """The tokens that training sees in the time there is."""
        from bertjax.bench.estimate import step_flops

        now = unchecked(self.config)
        return self.seconds * self._speed() / step_flops(now) * now.data.batch_size * now.data.seq_len


def _layers(number, width):
    sizes = {"num_layers": number, "hidden_size": width, "embedding_size": width, "num_heads": width // 64}
    return sizes | {"ffn_size": math.ceil(width * 8 / 3 / 32) * 32}


def _rounded(number):
    """For a person: two digits that count."""
    return f"{round(number, 1 - math.floor(math.log10(max(number, 10)))):,.0f}"


def _seconds(time):
    found = re.fullmatch(r"(\d+)(m|h)", time)
    if not found or not int(found[1]):
        raise ValueError(f"{time!r} is no time; say how long training may take, as 25m or 2h")
    return int(found[1]) * {"m": 60, "h": 3_600}[found[2]]
