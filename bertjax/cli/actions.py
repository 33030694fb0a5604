"""What each command of `bertjax` does, and its exit code.

A function gets what its entry in `bertjax.cli.commands` takes, by name: `config`, the values of its flags, and `words`.
Heavy imports happen inside the functions, so that --help is quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from bertjax.cli import listing
from bertjax.cli.output import dumps, lines, show
from bertjax.cli.overrides import Resolved
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.errors import PREEMPTED, ConfigError, DataError
from bertjax.storage import in_bucket, place, user_path

if TYPE_CHECKING:
    from bertjax.train.checkpoint import Wanted
    from bertjax.train.workdir import Origin


def info(config: Config, probe: bool, json: bool) -> int:
    from bertjax.bench.info import here, info, table

    if config.task.kind and (probe or "mlm_head" in config.model.heads):  # which a run with labels takes away
        fix = "`bertjax finetune` says it as it begins"
        raise ConfigError(f"task.kind = {config.task.kind}: what fine-tuning costs follows from its files; {fix}")
    values = info(config) | (here(config) if probe else {})
    show(dumps(values) if json else table(values))
    return 0


def config(resolved: Resolved, words: list[str], json: bool) -> int:
    fields = listing.fields(resolved, words)
    show(dumps(fields) if json else listing.table(fields))
    return 0


def tokenizer(config: Config, origin: "Origin", workdir: Path) -> int:
    from bertjax import storage
    from bertjax.tasks import inputs
    from bertjax.train.workdir import remember

    remember(workdir, config, origin)
    with storage.locked(storage.make(workdir)):
        inputs.make_tokenizer(config, workdir)
    return 0


def prepare(config: Config, origin: "Origin", workdir: Path, runner: str, beam_options: list[str]) -> int:
    from bertjax import storage
    from bertjax.tasks import inputs
    from bertjax.train import workdir as layout
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
    storage.make(workdir)
    if not config.data.tokenizer and not layout.tokenizer_place(workdir, config.data).exists():
        with storage.locked(workdir):
            inputs.make_tokenizer(config, workdir)
    show(dumps(inputs.make_data(config, workdir, chosen)))
    return 0


def data_report(config: Config, workdir: Path | None, phase: int, json: bool, html: Path | None) -> int:
    from bertjax.config.phases import alone
    from bertjax.report.page import page, text
    from bertjax.report.prepared import report
    from bertjax.tasks import inputs

    config = alone(config, phase)
    with inputs.opened(config, workdir) as (tokenizer, prepared):
        values = report(config, prepared, tokenizer)
    if html:
        html.write_text(page(values), encoding="utf-8")
        say(f"{html}: the report with plots")
    show(dumps(values) if json else text(values))
    return 0


def data_verify(config: Config, workdir: Path | None, json: bool) -> int:
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


def pretrain(config: Config, origin: "Origin", workdir: Path) -> int:
    from bertjax.parallel import distributed
    from bertjax.tasks.pretrain import pretrain
    from bertjax.train.workdir import remember

    if config.task.kind:
        raise ConfigError(f"task.kind = {config.task.kind}: is fine-tuning; run `bertjax finetune`")
    distributed.by_first(lambda: remember(workdir, config, origin))
    return 0 if pretrain(config, workdir, origin) else PREEMPTED


def finetune(config: Config, origin: "Origin", workdir: Path, json: bool) -> int:
    from bertjax.finetuning.finetune import finetune, table
    from bertjax.parallel import distributed

    result = finetune(config, workdir, origin)
    if result is None:
        return PREEMPTED
    if not distributed.first():
        return 0
    show(dumps(result) if json else table(result))
    return 0


def evaluate(config: Config, workdir: Path, data: tuple[str, ...], step: "Wanted") -> int:
    from bertjax.finetuning.evaluation import evaluate_parts
    from bertjax.tasks.evaluate import evaluate

    if data and not config.task.kind:
        raise ConfigError(f"--data={','.join(data)}: {workdir} knows no task with labels; fine-tune it first")
    if config.task.kind and in_bucket(workdir):
        raise ConfigError(f"--workdir={workdir}: a fine-tuned run is evaluated on a disk; copy it there")
    labelled = config.task.kind != ""
    show(dumps(evaluate_parts(config, workdir, data, step) if labelled else evaluate(config, workdir, step)))
    return 0


def fill_mask(words: list[str], workdir: Path, top: int, json: bool) -> int:
    from bertjax.trained.fill_mask import fill_mask

    for filled in fill_mask(workdir, words or lines(), top=top):
        if json:
            show(dumps({"text": filled.text, "choices": filled.choices}))
            continue
        show(filled.text)
        for choices in filled.choices:
            show("   " + "  ".join(f"{piece} {probability:.3f}" for piece, probability in choices))
    return 0


def predict(words: list[str], workdir: Path, format: str, json: bool) -> int:
    from bertjax.cli import answers, requests
    from bertjax.trained import inference
    from bertjax.trained.predict import kind_of

    model = inference.load(workdir)
    kind = kind_of(model)
    for chunk in requests.chunks(kind, words, format):
        for request, found in zip(chunk, answers.of(model, kind, chunk), strict=True):
            show(dumps(answers.values(found)) if json else answers.line(request, found))
    return 0


def score(words: list[str], pairs: tuple[str, ...], by: str, limit: int, out: Path | None, json: bool) -> int:
    from bertjax.tasks.minimal_pairs import plot, score, table

    result = score(place(words[0]), pairs, by=by, limit=limit)
    show(dumps(result) if json else table(result))
    if out:
        plot(result, out)
        say(f"{out}: the same as a picture")
    return 0


def import_model(words: list[str], workdir: Path) -> int:
    from bertjax.trained.exchange import import_directory

    made = import_directory(user_path(words[0]), workdir)
    say(f"{workdir}: {made.model.num_layers} layers of {made.model.hidden_size}, as step 0")
    return 0


def export_model(config: Config, workdir: Path, step: "Wanted", out: Path) -> int:
    from bertjax.trained.exchange import export_directory

    exported = export_directory(config, workdir, out, step)
    say(f"{out}: step {exported} of {workdir}")
    return 0


def compare(words: list[str], repeats: int, out: Path | None, json: bool) -> int:
    from bertjax.bench.compare import compare, plot, table

    result = compare([user_path(word) for word in words], repeats=repeats)
    show(dumps(result) if json else table(result))
    if out:
        plot(result, out)
        say(f"{out}: the same as a picture")
    return 0


def compile_ahead(config: Config, topology: str, phase: int, search: bool, out: Path | None, json: bool) -> int:
    from bertjax.ahead import search as searching
    from bertjax.ahead import shown
    from bertjax.ahead.compile import report
    from bertjax.config.phases import alone

    config = alone(config, phase)
    if search:
        values, tried = searching.search(config, topology)
        flags = searching.suggestion(config, values)
        values |= {"tried": tried, "suggested": flags}
    else:
        values = report(config, topology)
    if json:
        show(dumps(values))
    else:
        show(shown.text(values) + (f"\n\n{shown.tried(tried, flags)}" if search else ""))
    if out:
        shown.plot(values, out)
        say(f"{out}: the same as a picture")
    return 0


def profile(config: Config, topology: str, phase: int, steps: int, out: Path | None, json: bool) -> int:
    from bertjax import storage
    from bertjax.config.phases import alone
    from bertjax.profiling import report, shown

    config = alone(config, phase)
    if topology:
        if steps:
            raise ConfigError(f"--steps={steps}: nothing is run with --topology={topology}; leave one of them out")
        values = report.estimated(config, topology)
    else:
        out = out or Path("profile")
        values = report.measured(config, out, steps=steps or 3)
        say(f"{out}: the trace; XProf, TensorBoard and ui.perfetto.dev show it")
    show(dumps(values) if json else shown.text(values))
    if out:
        picture = storage.make(out) / "operations.png"
        shown.plot(values, picture)
        say(f"{picture}: the table as a picture")
    return 0


def bench_train(config: Config, workdir: Path | None, phase: int, vs: str, windows: int, json: bool) -> int:
    from bertjax.bench.step import bench, real_rows, table
    from bertjax.config.phases import alone

    config, rows = alone(config, phase), None
    if workdir is not None and config.task.kind:
        say(f"task.kind = {config.task.kind}: is timed on full rows of random tokens")
    elif workdir is not None:
        from bertjax.tasks.inputs import open_data

        tokenizer, prepared = open_data(config, workdir)
        rows = real_rows(config, prepared, tokenizer)
    result = bench(config, vs=vs, windows=windows, rows=rows)
    show(dumps(result) if json else table(result))
    return 0


def bench_data(config: Config, workdir: Path | None, phase: int, seconds: float, json: bool) -> int:
    from bertjax.bench.pipeline import bench
    from bertjax.config.phases import alone
    from bertjax.tasks import inputs

    config = alone(config, phase)
    with inputs.opened(config, workdir) as (tokenizer, prepared):
        result = bench(config.data, prepared, tokenizer, seed=config.run.seed, seconds=seconds)
    if json:
        show(dumps(result))
        return 0
    show(f"{result['real_tokens_per_second_per_core']:,.0f} real tokens a second on one core")
    show(f"{result['rows']:,} rows, packing density {result['packing_density']:.4f}, bound by {result['bound_by']}")
    return 0


def bench_checkpoint(config: Config, workdir: Path | None, phase: int, every: int, windows: int, json: bool) -> int:
    from bertjax.bench.saving import bench, table
    from bertjax.config.phases import alone

    result = bench(alone(config, phase), directory=workdir, every=every, windows=windows)
    show(dumps(result) if json else table(result))
    return 0


def bench_encode(words: list[str], vs: str, repeats: int, json: bool) -> int:
    from bertjax.bench.encode import bench

    result = bench(user_path(words[0]), lines(), vs=vs, repeats=repeats)
    show(dumps(result, indent=None if json else 2))
    return 0
