"""The commands of `bertjax`: what each runs, its help, and what it takes. A new one is a function in
`bertjax.cli.actions` and an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bertjax.cli import actions
from bertjax.cli.arguments import (
    Flag,
    Takes,
    Words,
    directory,
    new_file,
    one_of,
    run_directory,
    saved_step,
    seconds,
    several,
    whole,
)


@dataclass(frozen=True)
class Command:
    """A command: what it runs, its exit code being what that returns; its one line, more help, and what it takes."""

    run: Callable[..., int]
    summary: str
    details: str
    takes: Takes
    shared: bool = False  # whether several processes may run it together


_WORKDIR = Flag("workdir", "DIR", "the directory of the run, or gs://BUCKET/PATH", run_directory, required=True)
_ON_DISK = Flag("workdir", "DIR", "the directory of the run", directory, required=True)
_STEP = Flag("step", "N|newest|best", "the checkpoint of this step, or the best by run.keep_best", saved_step, "newest")
_JSON = Flag("json", "", "print one JSON object instead of a table")
_VS = "time the torch model of transformers in turn with it; needs the [hf] extra"
_REPEATS = Flag("repeats", "N", "how often each is timed", whole(1), 10)
_WINDOWS = Flag("windows", "N", "how often each is timed", whole(1), 5)
_DATA = Flag("workdir", "DIR", "the directory of the run whose data set it is", run_directory)
_PHASE = Flag("phase", "N", "the phase of the run that is meant, from 1; needed where there are several", whole(1), 0)
_MADE = "Without --workdir and data.prepared, the data set is made from data.source and thrown away afterwards."
_METHODS = ("pll", "unmasked")
_PICTURES = (".png", ".svg", ".pdf")
_MODEL = "a work directory or a Hugging Face directory"

COMMANDS = {
    "info": Command(
        actions.info,
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
        actions.config,
        "the fields: meaning, limits, and values with where each is from",
        "A value is the default, or from the recipe, the command line or an earlier one, which the run remembers.\n"
        "Without --config and --workdir, the defaults.",
        Takes("shown", flags=(_JSON,), words=Words("SECTION[.FIELD] ...", "what to list; all, if nothing is named")),
    ),
    "tokenizer": Command(
        actions.tokenizer,
        "train a tokenizer on data.source",
        "SentencePiece as ALBERT's or WordPiece as BERT's (data.tokenizer_kind), with model.vocab_size pieces, in\n"
        "data.tokenizer or WORKDIR/tokenizer. For SMILES, proteins and DNA (data.alphabet) and ids (data.format=ids)\n"
        "a list of pieces, in tokenizer.json.",
        Takes("kept", flags=(_WORKDIR,)),
    ),
    "prepare": Command(
        actions.prepare,
        "tokenise data.source into a data set of ArrayRecord shards",
        "In data.prepare_workers processes, to data.prepared or WORKDIR/data; with a tokenizer as of\n"
        "`bertjax tokenizer`, where there is none. Prints a JSON summary. The same command goes on after a stop.",
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
        actions.data_report,
        "what a data set holds and what the model will see, before a long run",
        "Documents, duplicates, unknown words, lengths, label and mask rates, packing, examples with their masks.\n"
        + _MADE,
        Takes(flags=(_DATA, _PHASE, _JSON, Flag("html", "FILE", "write a page with plots as well", new_file()))),
    ),
    "data verify": Command(
        actions.data_verify,
        "read and check every file of a prepared data set",
        "Of data.prepared or WORKDIR/data. Names each file that is damaged and ends with exit code 3.",
        Takes(flags=(_DATA, _JSON)),
    ),
    "pretrain": Command(
        actions.pretrain,
        "train to run.steps, from the newest checkpoint if there is one",
        "Writes WORKDIR/checkpoints, metrics.jsonl, config.json and curves.png. The same command goes on after a stop.",
        Takes("kept", flags=(_WORKDIR,)),
        shared=True,
    ),
    "finetune": Command(
        actions.finetune,
        "learn a task with labels: classes, numbers, tags, answers, choices",
        "The recipes of configs/finetune name the task; run.init_from the trained model to begin with. With several\n"
        "values in sweep.lr, sweep.epochs or sweep.seeds, all their combinations. Writes WORKDIR/result.json,\n"
        "predictions and pictures. The same command goes on after a stop.",
        Takes("kept", flags=(_ON_DISK, _JSON)),
        shared=True,
    ),
    "evaluate": Command(
        actions.evaluate,
        "held-out losses and accuracies of the newest checkpoint, or of another",
        "Of a fine-tuned model, its metrics on task.dev and task.test. Prints one JSON object.",
        Takes(
            flags=(
                _WORKDIR,
                _STEP,
                Flag("data", "FILE[,FILE ...]", "labelled examples to measure on instead", several, ()),
            )
        ),
    ),
    "fill-mask": Command(
        actions.fill_mask,
        "the likeliest pieces for each [MASK] of a text",
        "For example: bertjax fill-mask --workdir=DIR 'The capital of [MASK] is Paris.'",
        Takes(
            "none",
            flags=(
                Flag("workdir", "DIR", _MODEL, run_directory, required=True),
                Flag("top", "N", "how many pieces for each [MASK]", whole(1), 5),
                Flag("json", "", "print a JSON object for each text"),
            ),
            words=Words("TEXT ...", "texts; without any, the lines of standard input"),
        ),
    ),
    "predict": Command(
        actions.predict,
        "what a fine-tuned model says of texts: labels, numbers, tags, answers",
        "A line is a text; with TABs a pair, a question and its context, or a text and its endings; or a JSON object\n"
        'with "text", and "pair" or "endings"; with "question" and "context"; or with "words", a list. The lines of\n'
        "standard input are read as they come, and answered in their order.",
        Takes(
            "none",
            flags=(
                Flag("workdir", "DIR", _MODEL, run_directory, required=True),
                Flag(
                    "format",
                    "text|tsv|jsonl",
                    "what all lines are; auto: as the first one is",
                    one_of("auto", "text", "tsv", "jsonl"),
                    "auto",
                ),
                Flag("json", "", "print a JSON object for each"),
            ),
            words=Words("TEXT ...", "texts; without any, the lines of standard input"),
        ),
    ),
    "score": Command(
        actions.score,
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
        actions.import_model,
        "make a work directory from a Hugging Face directory",
        "BERT, ALBERT, DistilBERT or RoBERTa, from safetensors; the model is step 0 of the new work directory.",
        Takes(
            "none",
            flags=(Flag("workdir", "DIR", "the work directory to make, new or empty", directory, required=True),),
            words=Words("HF_DIR", "the Hugging Face directory", 1, 1),
        ),
    ),
    "export": Command(
        actions.export_model,
        "write the newest checkpoint, or another, as a Hugging Face directory",
        "Weights, config, tokenizer and model card, for `from_pretrained` of transformers.",
        Takes(
            flags=(
                _WORKDIR,
                _STEP,
                Flag("out", "HF_DIR", "the directory to write, new or empty", directory, required=True),
            ),
        ),
    ),
    "compare": Command(
        actions.compare,
        "models side by side: size, work, speed here, held-out loss, tasks and the share retained",
        "The first model is what the others are held against, and the first work directory with a data set gives the\n"
        "held-out text. The forward pass is what is timed. A directory of several fine-tuned runs, one for each task,\n"
        "is one model, with the mean over its tasks.",
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
    "compile": Command(
        actions.compile_ahead,
        "the training step for a machine that is not here: whether it fits, what it sends, its time by estimate",
        "Compiles for TPUs (needs the [tpu] extra) or NVIDIA GPUs ([cuda12] or [cuda13]) without having any; a minute\n"
        "or two. Bytes and exchanges are the compiler's, times are estimates.",
        Takes(
            flags=(
                Flag("topology", "v5e:2x4|v5p:4x4x4|h100:8|h100:2x8", "the machine, docs/compile.md", required=True),
                _PHASE,
                Flag("search", "", "try other meshes, rows at a time and remat, a compilation each; suggest the best"),
                Flag("out", "FILE", "draw it as well; .png, .svg or .pdf", new_file(*_PICTURES)),
                _JSON,
            )
        ),
    ),
    "profile": Command(
        actions.profile,
        "where the time of a training step goes, by kind, part of the model and operation",
        "Traces steps on synthetic batches. With --topology nothing is run, and times are the estimates of `bertjax\n"
        "compile`.",
        Takes(
            flags=(
                Flag("topology", "v5e:2x4|...", "estimate it for this machine instead, docs/compile.md", default=""),
                _PHASE,
                Flag("steps", "N", "how many steps are traced; 3, if it is not given", whole(1), 0),
                Flag("out", "DIR", "where trace and picture go; profile, if it is not given", directory),
                _JSON,
            )
        ),
    ),
    "bench train": Command(
        actions.bench_train,
        "time a training step",
        "Speed, MFU, FLOPs, memory and compilation; with --workdir on rows of its data set, else on full rows of\n"
        "random tokens. --vs=hf: in turn with BERT as people run it, on the same examples, one a row and padded.",
        Takes(
            flags=(
                _DATA,
                _PHASE,
                Flag("vs", "hf[:eager|:sdpa|:compile]", _VS, one_of("hf", "hf:eager", "hf:sdpa", "hf:compile"), ""),
                _WINDOWS,
                _JSON,
            )
        ),
    ),
    "bench data": Command(
        actions.bench_data,
        "time the input pipeline on one core",
        "Real tokens a second, packing density and what binds.\n" + _MADE,
        Takes(flags=(_DATA, _PHASE, Flag("seconds", "N", "how long it is timed", seconds, 10.0), _JSON)),
    ),
    "bench checkpoint": Command(
        actions.bench_checkpoint,
        "time a save while training goes on",
        "What a checkpoint costs a run on this disk: stretches of steps with a save and without one take turns.",
        Takes(
            flags=(
                Flag("workdir", "DIR", "where to save, for a moment; default: the system's temporary files", directory),
                _PHASE,
                Flag("every", "N", "steps from one save to the next", whole(1), 100),
                _WINDOWS,
                _JSON,
            )
        ),
    ),
    "bench encode": Command(
        actions.bench_encode,
        "time a trained model on texts and on full rows",
        "The texts come from standard input, one a line. Prints JSON: the medians of the runs.",
        Takes(
            "none",
            flags=(
                Flag("vs", "hf", _VS, one_of("hf"), ""),
                _REPEATS,
                Flag("json", "", "print it on one line"),
            ),
            words=Words("DIR", f"{_MODEL}; with --vs, a Hugging Face directory", 1, 1),
        ),
    ),
}
"""Name, of one word or two -> the command; in the order of the help."""
