"""Apache Beam as the runner of a preparation: on this machine, or on Dataflow, Flink or Spark.

Beam needs older versions of protobuf, pyarrow, pillow and python-dateutil than bertjax is tested with, so it lives in
an environment of its own (`launch/beam.sh`). Its workers write where the local ones do: all of them must see the
source, the tokenizer and the output under the same paths.
"""

import contextlib
import io
import json
import logging
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bertjax.corpus import prepare
from bertjax.errors import ConfigError, DataError, StorageError


def runner(options: list[str]) -> prepare.Runner:
    """Run `prepare.work` under Beam's pipeline `options`; without `--runner`, in this process.

    Raises ConfigError where Beam is not installed and for options that it does not know. The runner raises the
    DataError of a unit that had one, and StorageError for whatever else ends the pipeline; what is finished stays. It
    yields the numbers of its units when the whole pipeline is done.
    """
    logging.getLogger().setLevel(logging.ERROR)  # before the import, which warns of parts that are not installed
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # a failure is told once, as a line
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        fix = "run `launch/beam.sh prepare --runner=beam ...`, which makes an environment that has it"
        raise ConfigError(f"--runner=beam: Apache Beam is not installed here; {fix}") from None

    # Named, because Beam's default is to download a program (Prism) and to run it.
    local = not any(option.startswith("--runner") for option in options)
    parsed = PipelineOptions([*options, "--runner=FnApiRunner"] if local else options)
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):  # argparse prints all of Beam's options
            unknown = set(parsed.get_all_options(retain_unknown_options=True)) - set(parsed.get_all_options())
    except SystemExit:
        raise ConfigError(f"--beam_options: {messages.getvalue().strip().splitlines()[-1]}") from None
    if local and unknown:  # other runners have options of their own
        raise ConfigError(f"--beam_options: {', '.join(sorted(unknown))}: Beam has no such option")

    def run(folder: Path, numbers: list[int]) -> Iterator[int]:
        if not numbers:
            return
        folder = folder.absolute()
        for number in numbers:
            error_file(folder, number).unlink(missing_ok=True)
        try:
            with beam.Pipeline(options=parsed) as pipeline:
                # Reshuffled, because a step that follows Create directly is fused with it, and runs on one worker.
                _ = pipeline | beam.Create(numbers) | beam.Reshuffle() | "unit" >> beam.Map(partial(work, folder))
        except Exception as error:  # each runner has its own, some with a traceback of the worker as the text
            last = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
            line = last.split(" [while running")[0].removeprefix("RuntimeError: ")
            raise StorageError(f"{folder}: Beam's pipeline failed ({line}); the same command continues") from error
        for number in numbers:
            with contextlib.suppress(FileNotFoundError):
                raise DataError(json.loads(error_file(folder, number).read_text()))
        yield from numbers

    return run


def work(folder: Path, number: int) -> None:
    """As `prepare.work`, but a DataError is left in `error_file`: Beam would only try again, with the same result."""
    try:
        prepare.work(folder, number)
    except DataError as error:
        error_file(folder, number).write_text(json.dumps(str(error), allow_nan=False))


def error_file(folder: Path, number: int) -> Path:
    """Where the error of a unit is told, as a JSON string."""
    return folder / f"unit-{number:07d}.error"
