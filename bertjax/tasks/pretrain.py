"""The pretraining loop and the evaluation, from a config and a work directory. Read it top to bottom."""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax.model import attention
from bertjax.parallel import sharding
from bertjax.tasks import teacher
from bertjax.train import checkpoint, metrics, objective, workdir
from bertjax.trained import load as pretrained, warmstart
from bertjax.config.recipe import override
from bertjax.config.schema import Config, TeacherConfig
from bertjax.data import dataset, pipeline, tokenizer
from bertjax.tasks.distill import Teacher
from bertjax.errors import ConfigError, DataError, NumericError
from bertjax.tasks.inputs import open_data
from bertjax.model.network import abstract_params
from bertjax.train.step import TrainState, abstract_state, init_state, make_eval_step, make_train_step

Batch = dict[str, np.ndarray]


def pretrain(config: Config, directory: Path) -> bool:
    """Train to `run.steps`, from the newest checkpoint in `directory` if there is one.

    Returns False if it was asked to stop (SIGTERM, Ctrl-C) before the end: the state is then saved, and the same call
    goes on from it. Raises a UserError before anything compiles if an input does not fit.
    """
    # ---- Inputs: whatever can be refused is refused here, before anything compiles.
    mesh = sharding.make_mesh(config.mesh)
    sharding.check(config, mesh)
    attention.check(config, mesh.devices.flat[0].platform)
    metrics.check_tensorboard(config)
    tokens, prepared = open_data(config, directory)
    for split in (prepared.train, prepared.validation):  # one without examples would only show at the first evaluation
        pipeline.epoch_rows(config.data, split, seed=config.run.seed)
    held_out = make_evaluate(config, mesh, tokens, prepared)
    source, taught_by = _source(config, directory, tokens), teacher.load(config, tokens, mesh)
    saved = directory / "checkpoints"

    with workdir.locked(workdir.make(directory)):
        # ---- State: a fresh one, or the newest that is whole.
        for line in checkpoint.clean(saved):
            print(line, file=sys.stderr)
        position = checkpoint.Position(0, prepared.digest, tokens.digest, taught_by.digest if taught_by else "")
        state, row = _resume(config, directory, mesh, position) or (_begin(config, mesh, source, tokens), 0)
        start = int(state.step)
        if start >= config.run.steps:
            print(f"{directory}: is done, at step {start} of {config.run.steps}", file=sys.stderr)
            return True
        workdir.save_config(directory, config)

        # ---- The loop.
        with (
            _stop_signals() as stop_asked,  # first, so that it also covers the end of the last save
            closing(
                pipeline.train_batches(config.data, prepared, tokens, seed=config.run.seed, start_row=row)
            ) as batches,
            closing(metrics.Writer(directory, config, start_step=start)) as writer,
            closing(checkpoint.Checkpoints(saved, keep=config.run.keep)) as writes,
            closing(metrics.Progress(config.run.steps, start=start, unit="step", label="pretrain")) as progress,
        ):
            recorder = _Recorder(config, taught_by, mesh, writer, progress)
            train_step = make_train_step(config, mesh, taught_by)
            for step in range(start + 1, config.run.steps + 1):
                batch, waited = _timed(batches)
                row += config.data.batch_size
                state, values = train_step(state, sharding.put_batch(batch, mesh))
                recorder.add(step, values, batch, waited)
                last, stop = step == config.run.steps, stop_asked()
                # Evaluate before the save of the same step: what is saved has all its metrics on disk.
                if last or _due(step, config.run.eval_every):
                    recorder.flush()
                    recorder.write(step, {f"eval_{k}": v for k, v in held_out(state.params).items()})
                    recorder.restart_clock()
                if last or stop or _due(step, config.run.save_every):
                    recorder.flush()
                    writes.save(step, state, position=replace(position, rows=row), config=config)
                if stop:
                    break
        metrics.plot(directory, unigram_loss=unigram_entropy(prepared.token_counts))
        return last


def make_evaluate(
    config: Config, mesh: Any, tokens: tokenizer.Tokenizer, prepared: dataset.Prepared
) -> Callable[[Any], dict[str, float]]:
    """A function of the parameters: loss and accuracy of each term on held-out documents, and `unigram_loss`.

    `unigram_loss` is the loss of a model that knows only how often each token occurs in the training documents, on the
    same masked labels: what a model must beat to have learnt anything from context.
    """
    # In batches of a microbatch's size: what fits into memory for training fits here.
    rows = config.data.batch_size // config.optim.accumulate
    terms = vars(objective.held_out(config.objective))
    config = override(
        config, data={"batch_size": rows}, optim={"accumulate": 1}, objective=terms, teacher=vars(TeacherConfig())
    )
    eval_step = make_eval_step(config, mesh)
    log_probs_V = unigram_log_probs(prepared.token_counts)

    def evaluate(params: Any) -> dict[str, float]:
        batches = pipeline.eval_batches(config.data, prepared, tokens, seed=config.run.seed, rows=config.run.eval_rows)
        sums: dict[str, float] = {}
        for batch in batches:
            values = jax.device_get(eval_step(params, sharding.put_batch(batch, mesh)))
            values["unigram_loss"] = -np.sum(batch["mlm_weights"] * log_probs_V[batch["mlm_labels"]])
            sums = {name: sums.get(name, 0.0) + float(value) for name, value in values.items()}
        totals = {name: sums.pop(f"{name}_weight") for name in objective.active_terms(config.objective)}
        unigram = sums.pop("unigram_loss") / max(totals.get("mlm", 1.0), 1.0)
        result = {name: value / max(totals[name.rsplit("_", 1)[0]], 1.0) for name, value in sums.items()}
        return result | ({"unigram_loss": unigram} if "mlm" in totals else {})

    return evaluate


def unigram_log_probs(counts_V: np.ndarray) -> np.ndarray:
    """Log-probabilities [V] of the tokens by their counts, each count raised by one so that none is zero."""
    return np.log((counts_V + 1.0) / (counts_V.sum() + len(counts_V)))


def unigram_entropy(counts_V: np.ndarray) -> float:
    """Entropy in nats of the training tokens."""
    log_probs_V = unigram_log_probs(counts_V)
    return float(-np.sum(np.exp(log_probs_V) * log_probs_V))


def evaluate(config: Config, directory: Path) -> dict[str, Any]:
    """Held-out metrics of the newest checkpoint: `steps`, losses, accuracies, `unigram_loss`, `tokens_per_second`."""
    mesh = sharding.make_mesh(config.mesh)
    sharding.check(config, mesh)
    tokens, prepared = open_data(config, directory)
    restored = checkpoint.restore_params(directory / "checkpoints", abstract_params(config.model, mesh))
    check_restored(config, directory, restored, tokens)
    result = make_evaluate(config, mesh, tokens, prepared)(restored.state)
    rates = [x["tokens_per_second"] for x in metrics.read(directory / metrics.METRICS) if x.get("tokens_per_second")]
    speed = float(np.median(rates)) if rates else None
    return {"steps": restored.step, **result, "tokens_per_second": speed, "workdir": str(directory)}


def check_restored(config: Config, directory: Path, restored: checkpoint.Restored, tokens: tokenizer.Tokenizer) -> None:
    """Raise an error if a checkpoint was trained with another model or another tokenizer."""
    workdir.check_same_run(directory, restored.config, config, sections=("model",))
    if restored.position.tokenizer != tokens.digest:
        raise DataError(
            f"data.tokenizer: {tokens.digest[:8]} is not {restored.position.tokenizer[:8]}, with which the run in"
            f" {directory} was trained; name that one"
        )


def _source(config: Config, directory: Path, tokens: tokenizer.Tokenizer) -> pretrained.Pretrained | None:
    """The model that a new run begins with. Raises ConfigError if `directory` holds something else than this run."""
    before = checkpoint.saved(directory / "checkpoints")
    if before:
        if not before.position.data:
            fix = f"name a new --workdir, and --config.run.init_from={directory}"
            raise ConfigError(f"--workdir={directory}: holds an imported model, not a run; {fix}")
        workdir.check_same_run(directory, before.config, config)
        return None
    if not config.run.init_from:
        return None
    source = pretrained.load(config.run.init_from)
    warmstart.check(source, config, tokens)
    return source


def _begin(config: Config, mesh: Any, source: pretrained.Pretrained | None, tokens: tokenizer.Tokenizer) -> TrainState:
    """The state of a new run: drawn from the seed, or with the parameters of a trained model."""
    state = init_state(config, mesh)
    if source is None:
        return state
    params, told = warmstart.adapt(source, config, tokens, jax.device_get(state.params))
    print(f"{config.run.init_from}: {told}", file=sys.stderr)
    return replace(state, params=jax.tree.map(lambda x, old: jax.device_put(x, old.sharding), params, state.params))


def _resume(config: Config, directory: Path, mesh: Any, position: checkpoint.Position) -> tuple[TrainState, int] | None:
    """The saved state and the number of rows it has seen; None if nothing is saved."""
    if not checkpoint.steps(directory / "checkpoints"):
        return None
    restored = checkpoint.restore(directory / "checkpoints", abstract_state(config, mesh))
    if restored.position != replace(position, rows=restored.position.rows):
        raise DataError(
            f"{workdir.prepared_path(directory, config.data)}: is not the data set, has not the tokenizer, or"
            f" teacher.path has not the teacher, that the run in {directory} was trained with; restore it, or start in"
            " another --workdir"
        )
    print(f"{directory}: goes on from step {restored.step}", file=sys.stderr)
    if restored.config["run"]["steps"] != config.run.steps:
        end = f"run.steps was {restored.config['run']['steps']}: the schedule now ends at {config.run.steps}"
        print(end, file=sys.stderr)
    return restored.state, restored.position.rows


class _Recorder:
    """Reads the metrics of a step when the next one has been dispatched: the device never waits for the host."""

    def __init__(
        self, config: Config, taught_by: Teacher | None, mesh: Any, writer: metrics.Writer, progress: metrics.Progress
    ) -> None:
        flops = metrics.step_flops_per_token(config, taught_by.model if taught_by else None)
        peak = metrics.peak_tflops(jax.devices()[0].device_kind, config.run.peak_tflops)
        self._rates = metrics.Throughput(flops=flops, peak=peak, devices=mesh.size)
        self._run, self._writer, self._progress = config.run, writer, progress
        self._pending: tuple[int, Any] | None = None
        self._settled = 0

    def add(self, step: int, values: Any, batch: Batch, waited: float) -> None:
        """Take the metrics of `step`, still being computed, and settle those of the step before."""
        self.flush()
        tokens = int(np.count_nonzero(batch["segments"]))
        self._rates.add(tokens=tokens, slots=batch["segments"].size, wait=waited)
        self._pending = (step, values)

    def flush(self) -> None:
        """Settle the pending step: stop on a loss that is no number, write a line if one is due."""
        if self._pending is None:
            return
        (step, values), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(values).items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            raise NumericError(
                f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}: no longer a number; the last"
                " checkpoint is intact: lower optim.lr or set optim.clip_norm, and start in another --workdir"
            )
        self._progress.advance()
        self._settled += 1
        if self._settled == 1:
            self.restart_clock()  # the first step compiled
        if _due(step, self._run.log_every) or step == self._run.steps:
            self.write(step, values | self._rates.take())

    def restart_clock(self) -> None:
        """Leave the time since the last line, spent on something else than steps, out of the rates."""
        self._rates.restart()

    def write(self, step: int, values: dict[str, float | None]) -> None:
        """Record values and show them."""
        self._writer.write(step, values)
        self._progress.say(metrics.describe(step, self._run.steps, values))


class _stop_signals:
    """While entered, SIGTERM and Ctrl-C only note that the run should save and stop; a second Ctrl-C interrupts."""

    def __enter__(self) -> Callable[[], bool]:
        self._asked = False
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return lambda: self._asked

    def _note(self, number: int, frame: Any) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _timed(batches: Iterator[Batch]) -> tuple[Batch, float]:
    start = time.monotonic()
    batch = next(batches)
    return batch, time.monotonic() - start
