"""The tokenizer and the prepared data set of a run: made where they are missing, opened and checked where they are."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bertjax import storage
from bertjax.config.schema import Config
from bertjax.console import say
from bertjax.corpus import prepare
from bertjax.corpus import units as corpus
from bertjax.corpus.train_tokenizer import train_sentencepiece
from bertjax.data import dataset
from bertjax.data.tokenizer import Tokenizer, check_vocabulary
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import ConfigError, DataError
from bertjax.progress import Progress
from bertjax.train import workdir


def make_tokenizer(config: Config, directory: Path) -> Path:
    """Train the SentencePiece model of a run on `data.source`, unless it is there; returns its path."""
    path = workdir.tokenizer_path(directory, config.data)
    if path.suffix != ".model":
        raise ConfigError(
            f"data.tokenizer = {config.data.tokenizer!r}: only SentencePiece is trained; end it in .model"
        )
    if path.exists():
        say(f"{path}: exists, and stays; remove it to train another")
        return path
    texts = (sentence for document in corpus.documents(config.data) for sentence in document)
    train_sentencepiece(
        texts, path, vocab_size=config.model.vocab_size, lower_case=config.data.lower_case, seed=config.run.seed
    )
    say(f"{path}: {config.model.vocab_size} pieces")
    return path


def make_data(config: Config, directory: Path, runner: prepare.Runner | None = None) -> dict:
    """Prepare the data set of a run, unless it is there; returns its summary. `runner` None = on this machine.

    Raises ConfigError if one that was made with other settings is in its place.
    """
    path, target = workdir.tokenizer_path(directory, config.data), workdir.prepared_path(directory, config.data)
    digest = load_tokenizer(path, lower_case=config.data.lower_case).digest
    if target.is_dir() and any(target.iterdir()):
        prepared = dataset.load(target)
        if not dataset.matches(prepared, config.data, digest):
            raise ConfigError(f"{target}: was prepared with other settings; remove it, or set data.prepared to another")
        say(f"{target}: is already prepared with these settings")
        return prepared.summary
    bar: Progress | None = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or Progress(total, start=done, unit="unit", label="prepare")
        bar.reach(done)

    # Beside the target, which other work directories may share.
    with storage.locked(storage.make(target.absolute().parent)):
        try:
            local = prepare.local(config.data.prepare_workers)
            summary = prepare.prepare(config.data, path, target, runner=runner or local, progress=progress)
        finally:
            if bar:
                bar.close()
    for reason, count in summary["skipped"].items():
        say(f"{target}: {reason.replace('_', ' ')}: {count}")
    return summary


def open_data(config: Config, directory: Path) -> tuple[Tokenizer, dataset.Prepared]:
    """The tokenizer and the prepared data set of a run. Raises DataError if one is missing or they do not fit."""
    tokenizer = load_tokenizer(workdir.tokenizer_path(directory, config.data), lower_case=config.data.lower_case)
    check_vocabulary(tokenizer, config.model.vocab_size)
    prepared = dataset.load(workdir.prepared_path(directory, config.data))
    dataset.check_tokenizer(prepared, tokenizer)
    # A data set of the run's own was made from data.source; one that is named was made from whatever it was.
    told = ("lower_case",) if config.data.prepared else dataset.SETTINGS
    asked = dataset.settings(config.data, tokenizer.digest)
    errors = [
        f"data.{name} = {asked[name]!r}: {prepared.directory} was prepared with {prepared.settings[name]!r}; say that,"
        " or prepare another data set"
        for name in told
        if asked[name] != prepared.settings[name]
    ]
    if errors:
        raise DataError("\n".join(errors))
    return tokenizer, prepared


@contextlib.contextmanager
def opened(config: Config, directory: Path | None) -> Iterator[tuple[Tokenizer, dataset.Prepared]]:
    """`open_data` in a work directory, or, without one, of what is made for the moment from `data.source`."""
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bertjax-")))
            if not config.data.tokenizer:
                make_tokenizer(config, directory)
            if not config.data.prepared:
                make_data(config, directory)
        yield open_data(config, directory)
