"""The commands of `bertjax`: what each runs, its help, and what it takes. A new one is a function and an entry here.

A function gets what its entry in `COMMANDS` takes, by name: `config`, the values of its flags, and `words`. Heavy
imports happen inside the functions, so that --help is quick.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertjax.cli import listing
from bertjax.cli.arguments import Flag, Takes, Words, directory, new_file, one_of, seconds, several, whole
from bertjax.cli.output import dumps, lines, show
from bertjax.cli.overrides import Resolved
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.errors import PREEMPTED, ConfigError, DataError
from bertjax.storage import user_path

if TYPE_CHECKING:
    from bertjax.train.workdir import Origin


@dataclass(frozen=True)
class Command:
    """A command: what it runs, its exit code being what that returns; its one line, more help, and what it takes."""

    run: Callable[..., int]
    summary: str
    details: str
    takes: Takes


def _info(config: Config, probe: bool, json: bool) -> int:
    from bertjax.bench.info import here, info, table

    values = info(config) | (here(config) if probe else {})
    show(dumps(values) if json else table(values))
    return 0


def _config(resolved: Resolved, words: list[str], json: bool) -> int:
    fields = listing.fields(resolved, words)
    show(dumps(fields) if json else listing.table(fields))
    return 0


def _tokenizer(config: Config, origin: "Origin", workdir: Path) -> int:
    from bertjax import storage
    from bertjax.tasks import inputs
    from bertjax.train.workdir import remember

    remember(workdir, config, origin)
    with storage.locked(storage.make(workdir)):
        inputs.make_tokenizer(config, workdir)
    return 0


def _prepare(config: Config, origin: "Origin", workdir: Path, runner: str, beam_options: list[str]) -> int:
    from bertjax import storage
    from bertjax.tasks import inputs
    from bertjax.train.workdir import remember

    if config.data.holdout == 0.0:
        fix = "pretrain and evaluate need held-out documents; set it to 0.01, or to less"
        raise ConfigError(f"data.holdout = 0.0: {fix}")
    chosen = None
    if runner == "beam":
        from bertjax.corpus import beam

        if "builtin" in config.data.source:
            fix = "prepare it without --runner=beam"
            raise ConfigError(f"data.source = {config.data.source}: builtin is other text in each environment; {fix}")
        chosen = beam.runner(beam_options)
    remember(workdir, config, origin)
    show(dumps(inputs.make_data(config, storage.make(workdir), chosen)))
    return 0


def _data_report(config: Config, workdir: Path | None, json: bool, html: Path | None) -> int:
    from bertjax.bench.report import report
    from bertjax.bench.report_page import page, text
    from bertjax.tasks import inputs

    with inputs.opened(config, workdir) as (tokenizer, prepared):
        values = report(config, prepared, tokenizer)
    if html:
        html.write_text(page(values), encoding="utf-8")
        say(f"{html}: the report with plots")
    show(dumps(values) if json else text(values))
    return 0


def _data_verify(config: Config, workdir: Path | None, json: bool) -> int:
    from bertjax.data import dataset
    from bertjax.train import workdir as layout

    if workdir is None and not config.data.prepared:
        raise ConfigError("--workdir: is missing; give it, or name the data set with --config.data.prepared=DIR")
    path = layout.prepared_path(workdir or Path(), config.data)
    checked = dict(dataset.verify(path))
    damaged = {name: problem for name, problem in checked.items() if problem}
    if json:
        show(dumps({"directory": str(path), "checked": len(checked), "damaged": damaged}))
    if damaged:
        raise DataError("\n".join(str(dataset.damaged(path / name, problem)) for name, problem in damaged.items()))
    say(f"{path}: {len(checked)} files are whole")
    return 0


def _pretrain(config: Config, origin: "Origin", workdir: Path) -> int:
    from bertjax.tasks.pretrain import pretrain
    from bertjax.train.workdir import remember

    remember(workdir, config, origin)
    return 0 if pretrain(config, workdir, origin) else PREEMPTED


def _evaluate(config: Config, workdir: Path) -> int:
    from bertjax.tasks.evaluate import evaluate

    show(dumps(evaluate(config, workdir)))
    return 0


def _fill_mask(words: list[str], workdir: Path, top: int, json: bool) -> int:
    from bertjax.trained.fill_mask import fill_mask

    for filled in fill_mask(workdir, words or lines(), top=top):
        if json:
            show(dumps({"text": filled.text, "choices": filled.choices}))
            continue
        show(filled.text)
        for choices in filled.choices:
            show("   " + "  ".join(f"{piece} {probability:.3f}" for piece, probability in choices))
    return 0


def _score(words: list[str], pairs: tuple[str, ...], by: str, limit: int, out: Path | None, json: bool) -> int:
    from bertjax.tasks.minimal_pairs import plot, score, table

    result = score(user_path(words[0]), pairs, by=by, limit=limit)
    show(dumps(result) if json else table(result))
    if out:
        plot(result, out)
        say(f"{out}: the same as a picture")
    return 0


def _import(words: list[str], workdir: Path) -> int:
    from bertjax.trained.exchange import import_directory

    made = import_directory(user_path(words[0]), workdir)
    say(f"{workdir}: {made.model.num_layers} layers of {made.model.hidden_size}, as step 0")
    return 0


def _export(config: Config, workdir: Path, out: Path) -> int:
    from bertjax.trained.exchange import export_directory

    step = export_directory(config, workdir, out)
    say(f"{out}: step {step} of {workdir}")
    return 0


def _compare(words: list[str], repeats: int, out: Path | None, json: bool) -> int:
    from bertjax.bench.compare import compare, plot, table

    result = compare([user_path(word) for word in words], repeats=repeats)
    show(dumps(result) if json else table(result))
    if out:
        plot(result, out)
        say(f"{out}: the same as a picture")
    return 0


def _bench(config: Config, peer: str, repeats: int, json: bool) -> int:
    from bertjax.bench.step import bench, table

    result = bench(config, peer=peer, repeats=repeats)
    show(dumps(result) if json else table(result))
    return 0


def _bench_data(config: Config, workdir: Path | None, seconds: float, json: bool) -> int:
    from bertjax.bench.pipeline import bench
    from bertjax.tasks import inputs

    with inputs.opened(config, workdir) as (tokenizer, prepared):
        result = bench(config.data, prepared, tokenizer, seed=config.run.seed, seconds=seconds)
    if json:
        show(dumps(result))
        return 0
    show(f"{result['real_tokens_per_second_per_core']:,.0f} real tokens a second on one core")
    show(f"{result['rows']:,} rows, packing density {result['packing_density']:.4f}, bound by {result['bound_by']}")
    return 0


def _bench_encode(words: list[str], peer: str, repeats: int, json: bool) -> int:
    from bertjax.bench.encode import bench

    result = bench(user_path(words[0]), lines(), peer=peer, repeats=repeats)
    show(dumps(result, indent=None if json else 2))
    return 0


_WORKDIR = Flag("workdir", "DIR", "the directory of the run", directory, required=True)
_JSON = Flag("json", "", "print one JSON object instead of a table")
_PEER = Flag("peer", "torch", "time the torch model in turn with it; needs the [hf] extra", one_of("torch"), "")
_REPEATS = Flag("repeats", "N", "how often each is timed", whole(1), 10)
_DATA = Flag("workdir", "DIR", "the directory of the run whose data set it is", directory)
_MADE = "Without --workdir and data.prepared, the data set is made from data.source and thrown away afterwards."
_METHODS = ("pll", "unmasked")
_PICTURES = (".png", ".svg", ".pdf")
_MODEL = "a work directory or a Hugging Face directory"

COMMANDS = {
    "info": Command(
        _info,
        "what a run costs: parameters, FLOPs, memory, hours",
        "From shapes alone, in seconds at any size, with the hours of other devices; --probe: of this machine too.",
        Takes(
            flags=(
                Flag("probe", "", "compile the step and time a few: memory, the largest batch, hours; a minute or two"),
                _JSON,
            )
        ),
    ),
    "config": Command(
        _config,
        "the fields: meaning, limits, and values with where each is from",
        "A value is the default, or from the recipe, the command line or an earlier one, which the run remembers.\n"
        "Without --config and --workdir, the defaults.",
        Takes("shown", flags=(_JSON,), words=Words("SECTION[.FIELD] ...", "what to list; all, if nothing is named")),
    ),
    "tokenizer": Command(
        _tokenizer,
        "train a tokenizer on data.source",
        "SentencePiece as ALBERT's or WordPiece as BERT's (data.tokenizer_kind), with model.vocab_size pieces, in\n"
        "data.tokenizer or WORKDIR/tokenizer. For SMILES, proteins and DNA (data.alphabet) and ids (data.format=ids)\n"
        "a list of pieces, in tokenizer.json.",
        Takes("kept", flags=(_WORKDIR,)),
    ),
    "prepare": Command(
        _prepare,
        "tokenise data.source into a data set of ArrayRecord shards",
        "In data.prepare_workers processes, to data.prepared or WORKDIR/data. Prints a JSON summary. The same command\n"
        "goes on after a stop.",
        Takes(
            "kept",
            flags=(
                _WORKDIR,
                Flag(
                    "runner",
                    "local|beam",
                    "beam: on Apache Beam, in the environment that launch/beam.sh makes",
                    one_of("local", "beam"),
                    "local",
                ),
                Flag("beam_options", "'OPTION ...'", "passed to Beam, as '--runner=DataflowRunner ...'", str.split, []),
            ),
        ),
    ),
    "data report": Command(
        _data_report,
        "what a data set holds and what the model will see, before a long run",
        "Documents, duplicates, unknown words, lengths, label and mask rates, packing, examples with their masks.\n"
        + _MADE,
        Takes(flags=(_DATA, _JSON, Flag("html", "FILE", "write a page with plots as well", new_file()))),
    ),
    "data verify": Command(
        _data_verify,
        "read and check every file of a prepared data set",
        "Of data.prepared or WORKDIR/data. Names each file that is damaged and ends with exit code 3.",
        Takes(flags=(_DATA, _JSON)),
    ),
    "pretrain": Command(
        _pretrain,
        "train to run.steps, from the newest checkpoint if there is one",
        "Writes WORKDIR/checkpoints, metrics.jsonl, config.json and curves.png. The same command goes on after a stop.",
        Takes("kept", flags=(_WORKDIR,)),
    ),
    "evaluate": Command(
        _evaluate,
        "held-out losses and accuracies of the newest checkpoint",
        "Prints one JSON object.",
        Takes(flags=(_WORKDIR,)),
    ),
    "fill-mask": Command(
        _fill_mask,
        "the likeliest pieces for each [MASK] of a text",
        "For example: bertjax fill-mask --workdir=DIR 'The capital of [MASK] is Paris.'",
        Takes(
            "none",
            flags=(
                Flag("workdir", "DIR", _MODEL, directory, required=True),
                Flag("top", "N", "how many pieces for each [MASK]", whole(1), 5),
                Flag("json", "", "print a JSON object for each text"),
            ),
            words=Words("TEXT ...", "texts; without any, the lines of standard input"),
        ),
    ),
    "score": Command(
        _score,
        "minimal pairs: how often a model finds the good sentence likelier",
        "BLiMP (.jsonl), Zorro (.txt), own pairs (.tsv), or builtin: accuracy by paradigm, by field, and their mean.",
        Takes(
            "none",
            flags=(
                Flag("pairs", "PATH[,PATH ...]", "files or directories of pairs, or builtin", several, required=True),
                Flag(
                    "by",
                    "METHOD",
                    "pll: each token behind [MASK] in turn; unmasked: one pass",
                    one_of(*_METHODS),
                    _METHODS[0],
                ),
                Flag("limit", "N", "take N pairs of each paradigm, evenly spread", whole(1), 0),
                Flag("out", "FILE", "draw it as well; .png, .svg or .pdf", new_file(*_PICTURES)),
                _JSON,
            ),
            words=Words("DIR", _MODEL, 1, 1),
        ),
    ),
    "import": Command(
        _import,
        "make a work directory from a Hugging Face directory",
        "BERT, ALBERT, DistilBERT or RoBERTa, from safetensors; the model is step 0 of the new work directory.",
        Takes(
            "none",
            flags=(Flag("workdir", "DIR", "the work directory to make, new or empty", directory, required=True),),
            words=Words("HF_DIR", "the Hugging Face directory", 1, 1),
        ),
    ),
    "export": Command(
        _export,
        "write the newest checkpoint as a Hugging Face directory",
        "Weights, config, tokenizer and model card, for `from_pretrained` of transformers.",
        Takes(
            flags=(
                _WORKDIR,
                Flag("out", "HF_DIR", "the directory to write, new or empty", directory, required=True),
            ),
        ),
    ),
    "compare": Command(
        _compare,
        "models side by side: size, work, speed here, held-out loss",
        "The first model is what the others are held against, and the first work directory with a data set gives the\n"
        "held-out text. The forward pass is what is timed.",
        Takes(
            "none",
            flags=(
                _REPEATS,
                Flag(
                    "out",
                    "FILE",
                    "draw it as well, with the held-out losses of runs by step; .png, .svg or .pdf",
                    new_file(*_PICTURES),
                ),
                _JSON,
            ),
            words=Words("DIR ...", "work directories or Hugging Face directories", 1),
        ),
    ),
    "bench": Command(
        _bench,
        "time a training step on synthetic batches",
        "By itself, or in turn with the BERT of Hugging Face's transformers on the same work.",
        Takes(flags=(_PEER, _REPEATS, _JSON)),
    ),
    "bench data": Command(
        _bench_data,
        "time the input pipeline on one core",
        "Real tokens a second, packing density and what binds.\n" + _MADE,
        Takes(flags=(_DATA, Flag("seconds", "N", "how long it is timed", seconds, 10.0), _JSON)),
    ),
    "bench encode": Command(
        _bench_encode,
        "time a trained model on texts and on full rows",
        "The texts come from standard input, one a line. Prints JSON: the medians of the runs.",
        Takes(
            "none",
            flags=(_PEER, _REPEATS, Flag("json", "", "print it on one line")),
            words=Words("DIR", f"{_MODEL}; with --peer, a Hugging Face directory", 1, 1),
        ),
    ),
}
"""Name, of one word or two -> the command; in the order of the help."""
