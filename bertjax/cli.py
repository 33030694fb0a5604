"""`bertjax COMMAND`: flags -> Config -> one call. Heavy imports happen inside the commands, so that --help is quick."""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from bertjax.config import Config, from_dict, to_dict
from bertjax.errors import PREEMPTED, ConfigError, StorageError, UserError
from bertjax.workdir import load_config

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
class Arguments:
    """What the command line says beside the config."""

    workdir: Path
    json: bool
    top: int
    peer: str
    repeats: int
    texts: list[str]


@dataclass(frozen=True)
class Command:
    """A subcommand: what it runs, `(config, arguments) -> exit code`, its one line and more help."""

    run: Callable[[Config, Arguments], int]
    summary: str
    details: str
    needs_workdir: bool = True
    saved_config: bool = False  # without --config, take the one that the run in --workdir was started with
    texts: bool = False  # takes arguments that are no flags


def _info(config: Config, args: Arguments) -> int:
    from bertjax.info import info, table

    values = info(config)
    print(json.dumps(values) if args.json else table(values))
    return 0


def _tokenizer(config: Config, args: Arguments) -> int:
    from bertjax import workdir
    from bertjax.data import corpus, tokenizer

    root = workdir.make(args.workdir)
    path = workdir.tokenizer_path(root, config.data)
    if path.suffix != ".model":
        raise ConfigError(
            f"data.tokenizer = {config.data.tokenizer!r}: only SentencePiece is trained; end it in .model"
        )
    with workdir.locked(root):
        if path.exists():
            print(f"{path}: exists, and stays; remove it to train another", file=sys.stderr)
            return 0
        texts = (sentence for document in corpus.documents(config.data) for sentence in document)
        tokenizer.train_sentencepiece(
            texts, path, vocab_size=config.model.vocab_size, lower_case=config.data.lower_case, seed=config.run.seed
        )
    print(f"{path}: {config.model.vocab_size} pieces", file=sys.stderr)
    return 0


def _prepare(config: Config, args: Arguments) -> int:
    from bertjax import metrics, workdir
    from bertjax.data import dataset, prepare, tokenizer

    root = workdir.make(args.workdir)
    tokenizer_path, target = workdir.tokenizer_path(root, config.data), workdir.prepared_path(root, config.data)
    digest = tokenizer.load(tokenizer_path, lower_case=config.data.lower_case).digest
    if target.is_dir() and any(target.iterdir()):
        prepared = dataset.load(target)
        if not dataset.matches(prepared, config.data, digest):
            raise ConfigError(f"{target}: was prepared with other settings; remove it, or set data.prepared to another")
        print(f"{target}: is already prepared with these settings", file=sys.stderr)
        print(json.dumps(prepared.summary))
        return 0
    progress = metrics.Progress(0, unit=" documents", label="prepare")
    # Beside the target, which other work directories may share.
    with contextlib.closing(progress), workdir.locked(workdir.make(target.absolute().parent)):
        summary = prepare.prepare(
            config.data,
            tokenizer_path,
            target,
            workers=config.data.prepare_workers,
            progress=lambda documents, tokens: progress.reach(documents),
        )
    print(json.dumps(summary))
    return 0


def _pretrain(config: Config, args: Arguments) -> int:
    from bertjax.train import pretrain

    return 0 if pretrain(config, args.workdir) else PREEMPTED


def _evaluate(config: Config, args: Arguments) -> int:
    from bertjax.train import evaluate

    print(json.dumps(evaluate(config, args.workdir)))
    return 0


def _fill_mask(config: Config, args: Arguments) -> int:
    from bertjax.predict import fill_mask

    texts = args.texts or [line.strip() for line in sys.stdin if line.strip()]
    for filled in fill_mask(config, args.workdir, texts, top=args.top):
        if args.json:
            print(json.dumps({"text": filled.text, "choices": filled.choices}))
            continue
        print(filled.text)
        for choices in filled.choices:
            print("   " + "  ".join(f"{piece} {probability:.3f}" for piece, probability in choices))
    return 0


def _bench(config: Config, args: Arguments) -> int:
    from bertjax.bench import bench

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


COMMANDS = {
    "info": Command(
        _info,
        "parameters by part, FLOPs per token, memory",
        "From shapes alone, in a second or two at any size. --json prints one object.",
        needs_workdir=False,
    ),
    "bench": Command(
        _bench,
        "time a training step on synthetic batches",
        "--repeats=N steps are timed; --peer=torch times Hugging Face's BERT in turn with it (needs the [hf] extra).",
        needs_workdir=False,
    ),
    "tokenizer": Command(
        _tokenizer,
        "train a SentencePiece tokenizer on data.source",
        "ALBERT's settings, model.vocab_size pieces, to data.tokenizer or WORKDIR/tokenizer/spiece.model.",
    ),
    "prepare": Command(
        _prepare,
        "tokenise data.source into a data set of ArrayRecord shards",
        "In data.prepare_workers processes, to data.prepared or WORKDIR/data. Prints a JSON summary.",
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
        saved_config=True,
    ),
    "fill-mask": Command(
        _fill_mask,
        "the likeliest pieces for each [MASK] of a text",
        "bertjax fill-mask --workdir=DIR 'The capital of [MASK] is Paris.' ...; without a text it reads lines from\n"
        "standard input. --top=N pieces each, --json one object a text. Without --config: WORKDIR/config.json.",
        saved_config=True,
        texts=True,
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
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        print(USAGE.format(commands="\n".join(f"  {n:<{width}}  {c.summary}" for n, c in COMMANDS.items())), end="")
        return 0
    if name not in COMMANDS:
        raise ConfigError(f"{name}: no such command; the commands are {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    if {"--help", "-h"} & set(arguments[1:]):
        flag = " --workdir=DIR" if command.needs_workdir else ""
        print(f"usage: bertjax {name} --config=FILE.py[:ARGUMENT] [--config.SECTION.FIELD=VALUE ...]{flag}\n")
        print(f"{command.summary}.\n{command.details}")
        return 0
    return command.run(*_parse(command, arguments[1:]))


def _parse(command: Command, argv: list[str]) -> tuple[Config, Arguments]:
    """The validated config and the other arguments; every mistake in overrides and values is in one report."""
    argv = _joined(argv)
    plain = [a for a in argv if not a.startswith(("--config.", "-config."))]
    overrides = [a for a in argv if a not in plain]
    flag_values, rest = _flags(plain, command)  # without a recipe that loads, nothing else can be checked
    errors, good = [], []
    if command.needs_workdir and not flag_values.workdir:
        errors.append("--workdir: is missing; name the directory of the run, --workdir=runs/NAME")
    if "://" in flag_values.workdir:
        errors.append(f"--workdir={flag_values.workdir}: must be a local or mounted directory")
    if rest and not command.texts:
        errors.append(f"{rest[0]}: unexpected argument; flags begin with --")
    for override in overrides:
        try:
            _flags([*plain, override], command)
            good.append(override)
        except ConfigError as error:
            errors.append(str(error))
    flag_values, rest = _flags([*plain, *good], command)
    try:
        config = from_dict(flag_values.config)
    except ConfigError as error:
        errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    workdir = Path(flag_values.workdir).expanduser()
    v = flag_values
    return config, Arguments(workdir, json=v.json, top=v.top, peer=v.peer, repeats=v.repeats, texts=rest)


def _joined(argv: list[str]) -> list[str]:
    """`--workdir DIR` and `--config FILE` in the form with an equals sign."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("--workdir", "--config") and not word.startswith("-"):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _flags(argv: list[str], command: Command) -> tuple[flags.FlagValues, list[str]]:
    """Parse with absl and ml_collections, whose exceptions are of many types; returns the flags and the other words."""
    from ml_collections import ConfigDict, config_flags

    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "Directory of the run.", flag_values=values)
    flags.DEFINE_boolean("json", False, "Print JSON.", flag_values=values)
    flags.DEFINE_enum("peer", "", ["", "torch"], "Model to time in turn.", flag_values=values)
    flags.DEFINE_integer("repeats", 10, "Steps to time.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("top", 5, "Choices for each [MASK].", lower_bound=1, flag_values=values)
    words = ["bertjax", *argv]
    workdirs = [a.split("=", 1)[1] for a in argv if a.startswith("--workdir=")]
    try:
        if any(a.startswith("--config=") for a in argv):
            config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=words)
        elif command.saved_config and workdirs:
            saved = ConfigDict(to_dict(load_config(Path(workdirs[-1]).expanduser())))
            config_flags.DEFINE_config_dict("config", saved, flag_values=values, sys_argv=words)
        else:
            raise ConfigError("--config: is missing; name a recipe, for example --config=configs/quickstart.py")
        rest = values(words)[1:]
        values.config.lock()  # reading it is what loads the recipe
    except UserError:
        raise
    except Exception as error:  # a recipe is code and may raise anything
        # The cause is the last line, even where ml_collections puts a whole traceback into the message; and overrides
        # are tried one by one, so the last is the one that is wrong.
        text = str(error).replace("\\n", "\n").strip() or type(error).__name__
        text = text[1:-1] if text[0] in "'\"" and text[0] == text[-1] else text
        named = [] if isinstance(error, flags.UnrecognizedFlagError) else [a for a in argv if a.startswith("--config")]
        raise ConfigError(": ".join([*named[-1:], text.splitlines()[-1].strip()])) from error
    return values, rest


if __name__ == "__main__":
    main()
