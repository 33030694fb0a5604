"""What fine-tuning leaves for people: every prediction beside what is right, and which labels are taken for which.

In the work directory, SPLIT being dev or test:

predictions.SPLIT.jsonl         an object for each record; see `line`
predictions.SPLIT.conll         tag: word, tag, predicted tag, with tabs between; the last two are what conlleval reads
squad_predictions.SPLIT.json    span: {id: text}, which SQuAD's scripts read; and, where there may be no answer,
squad_null_odds.SPLIT.json      {id: how much higher no answer scores than the best one}
confusion.SPLIT.png             classify, tag: drawn from the same predictions

Shape letter: C labels.
"""

import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertjax import storage
from bertjax.errors import printable
from bertjax.finetuning import scores
from bertjax.labelled.entities import OUTSIDE, entities, parse
from bertjax.labelled.records import Record
from bertjax.trained.predicted import Predicted

NO_ENTITY = "none"
OTHERS = "others"
MOST_LABELS = 50
"""Of a picture; the rarer ones are drawn together."""
_SHOWN_ANSWERS = 5


def write(
    directory: Path,
    split: str,
    kind: str,
    labels: Sequence[str],
    records: Sequence[Record],
    predicted: Sequence[Predicted],
) -> list[Path]:
    """Write the files above, each whole or not at all, and return them. Raises OSError where one cannot be written."""
    pairs = list(zip(records, predicted, strict=True))
    texts = {f"predictions.{split}.jsonl": "".join(_json(line(kind, *pair)) + "\n" for pair in pairs)}
    if kind == "tag":
        texts[f"predictions.{split}.conll"] = "\n".join(_conll(*pair) for pair in pairs)
    if kind == "span":
        texts[f"squad_predictions.{split}.json"] = _json(squad_predictions(records, predicted)) + "\n"
        if odds := squad_null_odds(records, predicted):
            texts[f"squad_null_odds.{split}.json"] = _json(odds) + "\n"
    for name, text in texts.items():
        # Half of a character, which JSON can hold and UTF-8 cannot, becomes what JSON writes for it.
        storage.write(directory / name, text.encode("utf-8", "backslashreplace"))
    written = [directory / name for name in texts]
    if kind in ("classify", "tag") and any(record.labelled for record in records):
        names, counts_CC = confusion(kind, labels, records, predicted)
        hits, all_ = int(np.trace(counts_CC)), int(counts_CC[: -1 if kind == "tag" else None].sum())
        title, what = f"{split}: {hits:,} of {all_:,} right", "label"
        if kind == "tag":
            title, what = f"{split}: {hits:,} of {all_:,} entities found, {NO_ENTITY} = not these words", "entity"
        written.append(directory / f"confusion.{split}.png")
        plot_confusion(written[-1], names, counts_CC, title=title, what=what)
    return written


def line(kind: str, record: Record, predicted: Predicted) -> dict[str, Any]:
    """What predictions.SPLIT.jsonl has of a record: place, name, texts, truth, predicted, scores, as far as there are.

    For questions also `start`, the first character of the answer in the context, and `null_odds`; of their scores the
    best five.
    """
    values: dict[str, Any] = {"place": record.place}
    if record.name:
        values["name"] = record.name
    values["texts"] = record.texts
    right = scores.truth(kind, record)
    if right is not None:
        values["truth"] = right
    values["predicted"] = predicted.value
    found = predicted.scores
    if isinstance(found, dict):
        shown = list(found.items())[: _SHOWN_ANSWERS if kind == "span" else None]
        values["scores"] = {name: round(share, 6) for name, share in shown}
    elif found:
        values["scores"] = [round(share, 6) for share in found]
    if predicted.answered is not None:
        values["start"] = predicted.answered.start
        if predicted.answered.null_odds is not None:
            values["null_odds"] = round(predicted.answered.null_odds, 6)
    return values


def squad_predictions(records: Sequence[Record], predicted: Sequence[Predicted]) -> dict[str, Any]:
    """The answers by the ids of the questions, or by their number from 0 where a question has none."""
    return {record.name or str(i): one.value for i, (record, one) in enumerate(zip(records, predicted, strict=True))}


def squad_null_odds(records: Sequence[Record], predicted: Sequence[Predicted]) -> dict[str, float]:
    """The null odds of the answers, in the same way; {} where each question always has an answer."""
    pairs = enumerate(zip(records, predicted, strict=True))
    odds = {record.name or str(i): one.answered.null_odds for i, (record, one) in pairs if one.answered is not None}
    return {name: number for name, number in odds.items() if number is not None}


def _json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


def _conll(record: Record, predicted: Predicted) -> str:
    columns: list[Any] = [record.texts, predicted.value]
    if record.tags is not None:
        columns.insert(1, record.tags)
    # White space in a cell would be another column to conlleval, and a line to some readers.
    cleaned = [
        [_SPACE.sub(" ", cell) for cell in cells] if _SPACE.search("".join(cells)) else cells for cells in columns
    ]
    return "".join("\t".join(cells) + "\n" for cells in zip(*cleaned, strict=True))


_SPACE = re.compile(r"\s")


def confusion(
    kind: str, labels: Sequence[str], records: Sequence[Record], predicted: Sequence[Predicted]
) -> tuple[list[str], np.ndarray]:
    """Names, and counts [C, C] of what is right (rows) and what is predicted (columns), of records with labels.

    tag: of entities by their types, the last being that no entity has exactly these words.
    """
    known = [(record, one) for record, one in zip(records, predicted, strict=True) if record.labelled]
    pairs: Iterable[tuple[Any, Any]]
    names: list[Any]
    if kind == "tag":
        names = [*dict.fromkeys(parse(tag)[1] for tag in labels if tag != OUTSIDE), None]
        pairs = _entity_pairs([record.tags or () for record, _ in known], [one.value for _, one in known])
    else:
        names = list(labels)
        pairs = ((record.label, one.value) for record, one in known)
    index = {name: number for number, name in enumerate(names)}
    counts_CC = np.zeros((len(names), len(names)), np.int64)
    for (right, given), count in Counter(pairs).items():
        counts_CC[index[right], index[given]] = count
    return [NO_ENTITY if name is None else name for name in names], counts_CC


def _entity_pairs(truth: Sequence[Any], predicted: Sequence[Any]) -> Iterator[tuple[str | None, str | None]]:
    right, given = ({one[:3]: one.type for one in entities(tags)} for tags in (truth, predicted))
    for words in right.keys() | given.keys():
        yield right.get(words), given.get(words)


def _fewer(names: list[str], counts_CC: np.ndarray) -> tuple[list[str], np.ndarray]:
    """With the rarest together as one, if there are too many; the others keep their order."""
    if len(names) <= MOST_LABELS:
        return names, counts_CC
    frequency_C = counts_CC.sum(axis=0) + counts_CC.sum(axis=1)
    kept = np.sort(np.argsort(-frequency_C, kind="stable")[: MOST_LABELS - 1])
    place_C = np.full(len(names), len(kept))
    place_C[kept] = np.arange(len(kept))
    fewer = np.zeros((MOST_LABELS, MOST_LABELS), np.int64)
    np.add.at(fewer, (place_C[:, None], place_C[None, :]), counts_CC)
    return [*(names[i] for i in kept), f"{len(names) - len(kept)} {OTHERS}"], fewer


def plot_confusion(path: Path, names: list[str], counts_CC: np.ndarray, *, title: str, what: str) -> None:
    """Draw counts and what share of its row each is, which is the colour too; a cell without a count is empty."""
    from matplotlib.figure import Figure  # here: it takes half a second to import

    names, counts_CC = _fewer(names, counts_CC)
    size, totals_C = len(names), counts_CC.sum(axis=1)
    shares_CC = counts_CC / np.maximum(totals_C, 1)[:, None]
    cell = float(np.interp(size, (2, 4, 8, 16), (1.2, 1.0, 0.62, 0.4)))  # inches
    figure = Figure(figsize=(size * cell + 3.0, size * cell + 2.0), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares_CC, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.argwhere(counts_CC > 0).tolist():
        share = shares_CC[row, column]
        text = axis.text(
            column,
            row,
            f"{counts_CC[row, column]:,}" + ("" if size > 16 and share < 0.01 else f"\n{_percent(share)}"),
            ha="center",
            va="center",
            fontsize=min(17.0 * cell**0.75, 11.0),  # two lines of it are half a cell
            color="white" if share > 0.55 else "black",
        )
        text.set_in_layout(False)  # thousands of them would be measured for nothing
    shown = [name if len(name) <= 24 else f"{name[:23]}…" for name in map(printable, names)]
    slanted = {"rotation": 90} if size > 8 else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    rows = [f"{name}  ({total:,})" for name, total in zip(shown, totals_C, strict=True)]
    axis.set_xticks(range(size), shown, fontsize=9, parse_math=False, **slanted)
    axis.set_yticks(range(size), rows, fontsize=9, parse_math=False)
    axis.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    axis.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    axis.grid(which="minor", color="0.85", linewidth=0.6)
    axis.tick_params(which="minor", length=0)
    axis.set(xlabel=f"predicted {what}", ylabel=f"true {what}", title=title)
    figure.colorbar(image, ax=axis, shrink=min(0.8, 4.0 / (size * cell)), label="share of the row")
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(picture, dpi=110, format="png", bbox_inches="tight", pad_inches=0.15)
    storage.write(path, picture.getvalue())


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "<1 %"
