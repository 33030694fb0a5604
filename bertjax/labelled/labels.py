"""The set of labels: found in examples, or held against theirs; and the spellings of tags as one."""

import difflib
import re
from collections.abc import Iterable, Sequence

from bertjax.errors import DataError
from bertjax.labelled.records import Record

OUTSIDE = "O"
"""The tag of a word that is in no name."""
SHOWN = 12
"""Labels that a message lists."""
_CHUNK = re.compile(r"([BIESLUM])-(.+)")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def found(records: Sequence[Record]) -> tuple[str, ...]:
    """The labels or tags of records, in the order of a model's logits.

    Labels are sorted, numbers as numbers: "2" before "10". Tags begin with "O"; then come B-X and I-X of each X that
    there is, both of them even where one was not seen. Raises DataError where there are fewer than two.
    """
    labels = {record.label for record in records if record.label is not None}
    tags = {tag for record in records if record.tags is not None for tag in record.tags}
    kinds = sorted({tag[2:] for tag in tags if _CHUNK.fullmatch(tag)})
    if kinds and is_chunks(tags):
        return (OUTSIDE, *(f"{place}-{kind}" for kind in kinds for place in "BI"))
    names = sorted(labels | tags, key=_by_number)
    if len(names) < 2:
        only = f"all have the label {names[0]!r}" if names else "none has a label"
        where = records[0].place.partition(": ")[0] if records else "there are no examples"
        raise DataError(f"{where}: {only}; there is nothing to tell apart: check task.label and the files")
    return tuple(names)


def check(records: Sequence[Record], labels: Sequence[str], what: str) -> None:
    """Raise DataError for the first label or tag that is none of `labels`; `what` says whose they are."""
    known = set(labels)
    for record in records:
        values = record.tags or (() if record.label is None else (record.label,))
        for value in values:
            if value not in known:
                raise DataError(f"{record.place}: {_unknown(value, labels, what)}")


def is_chunks(tags: Iterable[str]) -> bool:
    """Whether tags tell where names begin and end, as B-X and I-X do; otherwise each stands for itself, as "NOUN"."""
    return any(tag[:2] in ("B-", "I-") and tag[2:] for tag in tags)


def bio(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags of a sentence as B-X, I-X, O (IOB2), from IOB1, IOB2, BIOES, BILOU or BMES.

    In all of them a name begins with each B, S and U, behind each E, S, L and U, and where X changes. Raises
    ValueError with a tag that is of none.
    """
    result, inside = [], ""
    for tag in tags:
        match = _CHUNK.fullmatch(tag)
        if match is None and tag != OUTSIDE:
            raise ValueError(tag)
        place, kind = match.groups() if match else ("", "")
        begins = place in ("B", "S", "U") or kind != inside
        result.append(f"{'B' if begins else 'I'}-{kind}" if match else OUTSIDE)
        inside = "" if place in ("E", "S", "L", "U") else kind
    return tuple(result)


def listed(names: Sequence[str]) -> str:
    """The names for a message: all of them, or the first ones and how many there are."""
    return ", ".join(names[:SHOWN]) + (f", … ({len(names)} in all)" if len(names) > SHOWN else "")


def _unknown(value: str, labels: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(value, labels, n=1, cutoff=0.5)
    fix = f"the nearest is {near[0]!r}" if near else "correct it, or name all in task.labels"
    return f"the label {value!r:.60} is none of {what} ({listed(labels)}); {fix}"


def _by_number(name: str) -> tuple[bool, float, str]:
    number = _NUMBER.fullmatch(name)
    return number is None, float(name) if number else 0.0, name
