"""The tokenizer and the prepared data set of a run: made where they are missing, opened and checked where they are."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bertjax import storage
from bertjax.config.schema import Config, DataConfig
from bertjax.console import say
from bertjax.corpus import alphabets, prepare
from bertjax.corpus import units as corpus
from bertjax.corpus.doubts import doubts
from bertjax.corpus.train_tokenizer import train_sentencepiece
from bertjax.data import dataset, trial
from bertjax.data.tokenizer import Tokenizer, check_vocabulary, contents
from bertjax.errors import ConfigError, DataError, StorageError
from bertjax.progress import Progress
from bertjax.train import workdir


def make_tokenizer(config: Config, directory: Path) -> Path:
    """Make the tokenizer of a run from `data.source`, unless it is there; returns its path.

    A SentencePiece model is trained; of an alphabet, and of ids, it is a tokenizer.json that lists the pieces.
    """
    data, vocab_size = config.data, config.model.vocab_size
    path = workdir.tokenizer_path(directory, data)
    if path.suffix != (".json" if data.by_rule else ".model"):
        made = "a list of pieces, tokenizer.json, is made; end it in .json"
        made = made if data.by_rule else "only SentencePiece is trained; end it in .model"
        raise ConfigError(f"data.tokenizer = {data.tokenizer!r}: {made}")
    if path.exists():
        say(f"{path}: exists, and stays; remove it to train another")
        return path
    _tell_doubts(data)
    texts = (sentence for document in corpus.documents(data) for sentence in document)
    if data.format == "ids":
        alphabets.make_ids(texts, path, vocab_size=vocab_size)
    elif data.by_rule:
        unknown = alphabets.make_tokenizer(texts, path, alphabet=data.alphabet, kmer=data.kmer, vocab_size=vocab_size)
        if unknown > 0.01:
            fix = "check data.source, data.alphabet and model.vocab_size"
            say(f"{path}: {unknown:.0%} of the pieces of this text are unknown; {fix}")
    else:
        train_sentencepiece(texts, path, vocab_size=vocab_size, lower_case=data.lower_case, seed=config.run.seed)
    if not data.tokenizer:  # else the directory is not ours
        storage.write_sums(path.parent, [path.name])
    say(f"{path}: {vocab_size} pieces")
    return path


def _tell_doubts(data: DataConfig) -> None:
    for doubt in doubts(corpus.documents(data), data):
        say(doubt)


def make_data(config: Config, directory: Path, runner: prepare.Runner | None = None) -> dict:
    """Prepare the data set of a run, unless it is there; returns its summary. `runner` None = on this machine.

    Raises ConfigError if one that was made with other settings is in its place.
    """
    path, target = workdir.tokenizer_path(directory, config.data), workdir.prepared_path(directory, config.data)
    digest = trial.load(path, lower_case=config.data.lower_case).digest
    if target.is_dir() and any(target.iterdir()):
        if not (target / dataset.METADATA).exists():
            fix = "move it away, or set data.prepared to another directory"
            raise StorageError(f"{target}: holds something else than a data set; {fix}")
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

    if path.suffix != ".json" or config.data.by_rule:  # other JSON says itself what happens to the text
        _tell_doubts(config.data)
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
    path = workdir.tokenizer_path(directory, config.data)
    content = contents(path)  # before the data set is missed: without a tokenizer there can be none
    prepared = dataset.load(workdir.prepared_path(directory, config.data))
    known = prepared.tokenizer_digest
    tokenizer = trial.parse(path, content, lower_case=config.data.lower_case, known=known)
    check_vocabulary(tokenizer, config.model.vocab_size)
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
