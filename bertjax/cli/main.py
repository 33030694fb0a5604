"""`bertjax COMMAND`: flags -> Config -> one call. Heavy imports happen inside the commands, so that --help is quick."""

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertjax.cli.arguments import Arguments, Takes, parse
from bertjax.config.schema import Config
from bertjax.errors import PREEMPTED, ConfigError, DataError, StorageError, UserError

USAGE = """usage: bertjax COMMAND [--config=FILE.py[:ARGUMENT]] [--config.SECTION.FIELD=VALUE ...] [--workdir=DIR] ...

Pretraining of BERT, ALBERT and DistilBERT in JAX.

commands
{commands}

`bertjax COMMAND --help` tells more. Fields and their meaning: bertjax/config.py; recipes: configs/.

exit codes
  0 done   2 usage or config   3 data   4 checkpoint   5 loss is no longer a number   7 storage
  75 asked to stop (SIGTERM, Ctrl-C): the state is saved, the same command goes on from it
"""


@dataclass(frozen=True)
class Command:
    """A subcommand: what it runs, `(config, arguments) -> exit code`, its one line and more help."""

    run: Callable[[Config, Arguments], int]
    summary: str
    details: str
    takes: Takes = Takes()


def _info(config: Config, args: Arguments) -> int:
    from bertjax.bench.info import info, table

    values = info(config)
    print(json.dumps(values) if args.json else table(values))
    return 0


def _tokenizer(config: Config, args: Arguments) -> int:
    from bertjax.tasks import inputs
    from bertjax.train import workdir

    with workdir.locked(workdir.make(args.workdir)):
        inputs.make_tokenizer(config, args.workdir)
    return 0


def _prepare(config: Config, args: Arguments) -> int:
    from bertjax.tasks import inputs
    from bertjax.train import workdir

    runner = None
    if args.runner == "beam":
        from bertjax.corpus import beam

        if "builtin" in config.data.source:
            fix = "prepare it without --runner=beam"
            raise ConfigError(f"data.source = 'builtin': is other text in each environment; {fix}")
        runner = beam.runner(args.beam_options)
    workdir.make(args.workdir)
    print(json.dumps(inputs.make_data(config, args.workdir, runner)))
    return 0


def _data_report(config: Config, args: Arguments) -> int:
    from bertjax.tasks import inputs
    from bertjax.data import report, report_page

    with inputs.opened(config, args.workdir) as (tokens, prepared):
        values = report.report(config, prepared, tokens)
    if args.html:
        Path(args.html).write_text(report_page.page(values), encoding="utf-8")
        print(f"{args.html}: the report with plots", file=sys.stderr)
    print(json.dumps(values) if args.json else report_page.text(values))
    return 0


def _data_verify(config: Config, args: Arguments) -> int:
    from bertjax.train import workdir
    from bertjax.data import dataset

    directory = workdir.prepared_path(args.workdir or Path(), config.data)
    checked = dict(dataset.verify(directory))
    damaged = {name: problem for name, problem in checked.items() if problem}
    if args.json:
        print(json.dumps({"directory": str(directory), "checked": len(checked), "damaged": damaged}))
    if damaged:
        fix = f"delete {directory} and run `bertjax prepare` again"
        raise DataError("\n".join(f"{directory / name}: {problem}; {fix}" for name, problem in damaged.items()))
    print(f"{directory}: {len(checked)} files are whole", file=sys.stderr)
    return 0


def _bench_data(config: Config, args: Arguments) -> int:
    from bertjax.tasks import inputs
    from bertjax.bench.pipeline import bench

    with inputs.opened(config, args.workdir) as (tokens, prepared):
        result = bench(config.data, prepared, tokens, seed=config.run.seed, seconds=args.seconds)
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{result['real_tokens_per_second_per_core']:,.0f} real tokens a second on one core")
    print(f"{result['rows']:,} rows, packing density {result['packing_density']:.4f}, bound by {result['bound_by']}")
    return 0


def _pretrain(config: Config, args: Arguments) -> int:
    from bertjax.tasks.pretrain import pretrain

    return 0 if pretrain(config, args.workdir) else PREEMPTED


def _evaluate(config: Config, args: Arguments) -> int:
    from bertjax.tasks.pretrain import evaluate

    print(json.dumps(evaluate(config, args.workdir)))
    return 0


def _fill_mask(config: Config, args: Arguments) -> int:
    from bertjax.trained.fill_mask import fill_mask

    texts = args.texts or [line.strip() for line in sys.stdin if line.strip()]
    for filled in fill_mask(config, args.workdir, texts, top=args.top):
        if args.json:
            print(json.dumps({"text": filled.text, "choices": filled.choices}))
            continue
        print(filled.text)
        for choices in filled.choices:
            print("   " + "  ".join(f"{piece} {probability:.3f}" for piece, probability in choices))
    return 0


def _import(config: Config, args: Arguments) -> int:
    from bertjax.trained.exchange import import_directory

    if len(args.texts) != 1:
        raise ConfigError("bertjax import HF_DIR --workdir=DIR: name one Hugging Face directory")
    made = import_directory(Path(args.texts[0]).expanduser(), args.workdir)
    print(f"{args.workdir}: {made.model.num_layers} layers of {made.model.hidden_size}, as step 0", file=sys.stderr)
    return 0


def _export(config: Config, args: Arguments) -> int:
    from bertjax.trained.exchange import export_directory

    if not args.out:
        raise ConfigError("--out: is missing; name the directory to write, --out=DIR")
    step = export_directory(config, args.workdir, Path(args.out).expanduser())
    print(f"{args.out}: step {step} of {args.workdir}", file=sys.stderr)
    return 0


def _compare(config: Config, args: Arguments) -> int:
    from bertjax.bench.compare import compare, plot, table

    if args.out and Path(args.out).suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--out={args.out}: must be a picture, .png, .svg or .pdf")
    result = compare([Path(path).expanduser() for path in args.texts], repeats=args.repeats)
    print(json.dumps(result) if args.json else table(result))
    if args.out:
        plot(result, Path(args.out).expanduser())
        print(f"{args.out}: the same as a picture", file=sys.stderr)
    return 0


def _bench(config: Config, args: Arguments) -> int:
    from bertjax.bench.step import bench

    result = bench(config, peer=args.peer, repeats=args.repeats)
    if args.json:
        print(json.dumps(result))
        return 0
    for side in ("bertjax", "torch"):
        if side in result:
            numbers = "  ".join(f"{name} {value:,.3f}" for name, value in result[side].items())
            print(f"{side:<8} {numbers}")
    if "ratio" in result:
        print(f"bertjax is {result['ratio']:.3f} times as fast, median of {args.repeats} pairs")
    return 0


def _bench_encode(config: Config, args: Arguments) -> int:
    from bertjax.bench.encode import bench

    if len(args.texts) != 1:
        raise ConfigError("bertjax bench encode DIR < texts: name one work directory or Hugging Face directory")
    texts = [line.strip() for line in sys.stdin if line.strip()]
    result = bench(Path(args.texts[0]).expanduser(), texts, peer=args.peer, repeats=args.repeats)
    print(json.dumps(result, indent=None if args.json else 2))
    return 0


COMMANDS = {
    "info": Command(
        _info,
        "parameters by part, FLOPs per token, memory",
        "From shapes alone, in a second or two at any size. --json prints one object.",
        Takes(workdir=False),
    ),
    "bench": Command(
        _bench,
        "time a training step on synthetic batches",
        "--repeats=N steps are timed; --peer=torch times Hugging Face's BERT in turn with it (needs the [hf] extra).",
        Takes(workdir=False),
    ),
    "bench data": Command(
        _bench_data,
        "time the input pipeline on one core",
        "Real tokens a second (timed for --seconds=N), packing density and what binds. Without --workdir and\n"
        "data.prepared the data set is made for the moment from data.source. --json prints one object.",
        Takes(workdir=False),
    ),
    "bench encode": Command(
        _bench_encode,
        "time a trained model on texts and on full rows",
        "bertjax bench encode DIR < texts: DIR as `bertjax.load` takes it, a text a line. Prints JSON: medians of\n"
        "--repeats=N runs; --peer=torch times the torch model of a Hugging Face directory in turn with it.",
        Takes(workdir=False, config="none", texts=True),
    ),
    "data report": Command(
        _data_report,
        "what a data set holds and what the model will see, before a long run",
        "Documents, duplicates, unknown words, lengths, label and mask rates, packing, examples with their masks.\n"
        "--json prints one object, --html=FILE writes a page with plots. Without --workdir and data.prepared the\n"
        "data set is made for the moment from data.source.",
        Takes(workdir=False),
    ),
    "data verify": Command(
        _data_verify,
        "read and check every file of a prepared data set",
        "Of data.prepared or WORKDIR/data. Names each file that is damaged and ends with exit code 3.",
        Takes(workdir=False),
    ),
    "tokenizer": Command(
        _tokenizer,
        "train a SentencePiece tokenizer on data.source",
        "ALBERT's settings, model.vocab_size pieces, to data.tokenizer or WORKDIR/tokenizer/spiece.model.",
    ),
    "prepare": Command(
        _prepare,
        "tokenise data.source into a data set of ArrayRecord shards",
        "In data.prepare_workers processes, to data.prepared or WORKDIR/data. Prints a JSON summary. The same command\n"
        "goes on after a stop. --runner=beam runs on Apache Beam, in the environment that launch/beam.sh makes;\n"
        "--beam_options='--runner=DataflowRunner ...' are passed to it.",
    ),
    "pretrain": Command(
        _pretrain,
        "train to run.steps, from the newest checkpoint if there is one",
        "Writes WORKDIR/checkpoints, metrics.jsonl, config.json and curves.png. The same command goes on after a stop.",
    ),
    "evaluate": Command(
        _evaluate,
        "held-out losses and accuracies of the newest checkpoint",
        "Prints one JSON object. Without --config it takes WORKDIR/config.json.",
        Takes(config="saved"),
    ),
    "import": Command(
        _import,
        "a Hugging Face directory as a work directory",
        "bertjax import HF_DIR --workdir=DIR: BERT, ALBERT, DistilBERT or RoBERTa, from safetensors; step 0 of DIR.",
        Takes(config="none", texts=True),
    ),
    "export": Command(
        _export,
        "the newest checkpoint as a Hugging Face directory",
        "bertjax export --workdir=DIR --out=HF_DIR: weights, config, tokenizer and model card, for from_pretrained.",
        Takes(config="saved"),
    ),
    "compare": Command(
        _compare,
        "models side by side: size, work, speed here, held-out loss",
        "bertjax compare DIR DIR ...: work directories or Hugging Face directories; the first is what the others are\n"
        "held against, and the first work directory with a data set gives the held-out text. --repeats=N forward\n"
        "passes, --out=FILE.png draws it, with the held-out loss of runs by step, --json prints one object.",
        Takes(workdir=False, config="none", texts=True),
    ),
    "fill-mask": Command(
        _fill_mask,
        "the likeliest pieces for each [MASK] of a text",
        "bertjax fill-mask --workdir=DIR 'The capital of [MASK] is Paris.' ...; without a text it reads lines from\n"
        "standard input. --top=N pieces each, --json one object a text. Without --config: WORKDIR/config.json.",
        Takes(config="saved", texts=True),
    ),
}


def main(argv: list[str] | None = None) -> None:
    """Entry point: parse, run, exit."""
    arguments = sys.argv[1:] if argv is None else argv
    # Orbax logs a failed save with its traceback, and then raises it: it is told once, as a line.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        code = _dispatch(arguments)
    except UserError as error:
        for line in str(error).splitlines():
            print(f"bertjax: {line}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:  # `bertjax ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a full disk, a missing permission: wherever it happens, the file is in the error
        print(f"bertjax: {error.filename or 'input or output'}: {error.strerror or error}; free it", file=sys.stderr)
        code = StorageError.exit_code
    except KeyboardInterrupt:
        print("bertjax: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def _dispatch(arguments: list[str]) -> int:
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name = " ".join(arguments[:words]) or "--help"
    if name in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        print(USAGE.format(commands="\n".join(f"  {n:<{width}}  {c.summary}" for n, c in COMMANDS.items())), end="")
        return 0
    if name not in COMMANDS:
        raise ConfigError(f"{name}: no such command; the commands are {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    if {"--help", "-h"} & set(arguments[words:]):
        flag = " --workdir=DIR" if command.takes.workdir else ""
        print(f"usage: bertjax {name} --config=FILE.py[:ARGUMENT] [--config.SECTION.FIELD=VALUE ...]{flag}\n")
        print(f"{command.summary}.\n{command.details}")
        return 0
    return command.run(*parse(arguments[words:], command.takes))


if __name__ == "__main__":
    main()
