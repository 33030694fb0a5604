"""The tokenizer and the prepared data set of a run: made where they are missing, opened and checked where they are."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bertjax import storage
from bertjax.bucket import copies
from bertjax.config.schema import Config, DataConfig
from bertjax.console import say
from bertjax.corpus import doubts, prepare
from bertjax.corpus import units as corpus
from bertjax.data import dataset, trial
from bertjax.data.tokenizer import Tokenizer, check_vocabulary, contents
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import ConfigError, DataError, StorageError
from bertjax.progress import Progress
from bertjax.train import workdir
from bertjax.vocabulary import alphabets
from bertjax.vocabulary.unigram import train_sentencepiece
from bertjax.vocabulary.wordpiece import train_wordpiece

_REPAIRED = {
    "bad_utf8_lines": ", read as Windows-1252; convert the files with `iconv -f ENCODING -t UTF-8` if they are another",
    "bad_json_lines": ", left out; check data.text_field and that the files are whole",
    "broken_documents": ", without their </doc>; the text is kept",
    "cut_documents": ", of more than a million characters; check data.format: are they several?",
}
"""What was done, and the fix if that was wrong, where it is not in the name of the reason."""


def make_tokenizer(config: Config, directory: Path) -> Path:
    """Make the tokenizer of a run from `data.source`, unless it is there; returns its path.

    Trained is what data.tokenizer_kind says; of an alphabet, and of ids, it is a tokenizer.json that lists the pieces.
    """
    data, vocab_size = config.data, config.model.vocab_size
    place = workdir.tokenizer_place(directory, data)
    path = copies.local(place)  # of one in a bucket, which gets it when it is whole
    _check_suffix(path, data)
    if place.exists():
        say(f"{place}: exists, and stays; remove it to train another")
        return path
    text = doubts.sample(corpus.documents(data))
    lost = "" if data.by_rule else doubts.uncased(text)
    lower_case = data.lower_case if data.lower_case is not None else not lost
    if data.case == "auto" and lost:
        say(f"data.case = auto: the text is taken as it is, because uncased it would lose {lost}")
    _tell_doubts(text, data, lower_case=lower_case)
    texts = (sentence for document in corpus.documents(data) for sentence in document)
    if data.format == "ids":
        alphabets.make_ids(texts, path, vocab_size=vocab_size)
    elif data.by_rule:
        unknown = alphabets.make_tokenizer(texts, path, alphabet=data.alphabet, kmer=data.kmer, vocab_size=vocab_size)
        if unknown > 0.01:
            fix = "check data.source, data.alphabet and model.vocab_size"
            say(f"{path}: {unknown:.0%} of the pieces of this text are unknown; {fix}")
    elif data.tokenizer_kind == "wordpiece":
        train_wordpiece(texts, path, vocab_size=vocab_size, lower_case=lower_case)
    else:
        train_sentencepiece(texts, path, vocab_size=vocab_size, lower_case=lower_case, seed=config.run.seed)
    if not data.tokenizer:  # else the directory is not ours
        storage.write_sums(path.parent, [path.name])
    copies.publish_file(place)
    made = load_tokenizer(path, lower_case=data.lower_case)
    rest = f"; model.vocab_size = {vocab_size} has rows for more" if made.vocab_size < vocab_size else ""
    say(f"{place}: {made.vocab_size} pieces{'' if data.by_rule else ', ' + _case(lower_case)}{rest}")
    if not data.by_rule and made.lower_case != lower_case:  # too few pieces need it for that to be seen in them
        say(f"{place}: set data.case = {_case(lower_case)} in every command, which its pieces do not show")
    return path


def _check_suffix(path: Path, data: DataConfig) -> None:
    kind = "pieces that are listed" if data.by_rule else f"data.tokenizer_kind = {data.tokenizer_kind}"
    suffix = ".json" if data.by_rule else {"sentencepiece": ".model", "wordpiece": ".txt"}[data.tokenizer_kind]
    if path.suffix != suffix:
        raise ConfigError(f"data.tokenizer = {data.tokenizer!r}: {kind} makes another file; end it in {suffix}")


def _case(lower_case: bool) -> str:
    return "uncased" if lower_case else "cased"


def _tell_doubts(text: str, data: DataConfig, *, lower_case: bool) -> None:
    by_lines = corpus.records(data)
    if by_lines:
        files = by_lines[0] + (f" and {len(by_lines) - 1} more files" if len(by_lines) > 1 else "")
        fix = "set it to paragraphs if a document has blank lines around it"
        say(f"data.format = auto: each line of {files} is a document, because no blank line is there; {fix}")
    for doubt in doubts.doubts(text, data, lower_case=lower_case):
        say(doubt)


def make_data(config: Config, directory: Path, runner: prepare.Runner | None = None) -> dict:
    """Prepare the data set of a run, unless it is there; returns its summary. `runner` None = on this machine.

    Raises ConfigError if one that was made with other settings is in its place.
    """
    path, place = workdir.tokenizer_path(directory, config.data), workdir.prepared_place(directory, config.data)
    # In a bucket it is made here, and written there when it is whole.
    target = copies.data_set(place) or copies.local(place)
    tokenizer = trial.load(path, lower_case=config.data.lower_case)
    if target.is_dir() and any(target.iterdir()):
        if not (target / dataset.METADATA).exists():
            fix = "move it away, or set data.prepared to another directory"
            raise StorageError(f"{target}: holds something else than a data set; {fix}")
        prepared = dataset.load(target)
        if not dataset.matches(prepared, config.data, tokenizer):
            raise ConfigError(f"{target}: was prepared with other settings; remove it, or set data.prepared to another")
        copies.publish_data_set(place)
        say(f"{place}: is already prepared with these settings")
        return prepared.summary
    bar: Progress | None = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or Progress(total, start=done, unit="unit", label="prepare")
        bar.reach(done)

    if path.suffix != ".json" or config.data.by_rule:  # other JSON says itself what happens to the text
        text = doubts.sample(corpus.documents(config.data))
        _tell_doubts(text, config.data, lower_case=tokenizer.lower_case)
    # Beside the target, which other work directories may share.
    with contextlib.ExitStack() as stack:
        for parent in dict.fromkeys((place.absolute().parent, target.absolute().parent)):
            stack.enter_context(storage.locked(storage.make(parent)))
        try:
            local = prepare.local(config.data.prepare_workers)
            summary = prepare.prepare(config.data, path, target, runner=runner or local, progress=progress)
        finally:
            if bar:
                bar.close()
    copies.publish_data_set(place)
    for reason, count in summary["skipped"].items():
        say(f"{place}: {reason.replace('_', ' ')}: {count}{_REPAIRED.get(reason, '')}")
    for doubt in doubts.doubts_of_prepared(dataset.load(target), config.data, tokenizer, seed=config.run.seed):
        say(doubt)
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
    told = ("case",) if config.data.prepared else dataset.SETTINGS
    asked = dataset.settings(config.data, tokenizer)
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
