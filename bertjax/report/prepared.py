"""What a prepared data set holds and what training will see of it: numbers, and what looks wrong in them.

Counts come from the index and the plan of an epoch; shares that depend on chance are measured on the first rows of the
run. Nothing is read from the shards but these rows, and no loop in Python runs over documents or sentences.

Shape letters, beside those of `bertjax.batch`: V vocabulary, D documents, l lengths, k predicted tokens, n tokens.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, replace
from itertools import islice
from typing import Any

import numpy as np

from bertjax.config.schema import Config
from bertjax.data import dataset, masking, order
from bertjax.data.batches import Batch, train_maker
from bertjax.data.dataset import Prepared
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError
from bertjax.report import spelled

_SKIPPED = {
    "empty_documents": ("documents", "remove them from data.source"),
    "documents_without_tokens": ("documents", "check data.source: nothing in them is text"),
    "cut_documents": ("documents", "check that data.format fits: what is one document there may be a whole file"),
    "broken_documents": ("documents", "extract the files again"),
    "bad_json_lines": ("documents", "check data.text_field and that the files are whole"),
    "bad_rows": ("documents", "check data.text_field"),
    "bad_utf8_lines": ("sentences", "convert the files to UTF-8, for example with `iconv`"),
    "nul_lines": ("sentences", "check that data.source names text, not binary files"),
    "long_lines": ("sentences", "check that data.format fits: lines of text are shorter"),
    "outside_lines": ("sentences", "set data.format to the form of the files"),
}
"""Reason -> what it is counted against, and the fix; other reasons count against documents."""


def report(config: Config, prepared: Prepared, tokenizer: Tokenizer, *, rows: int = 2000, shown: int = 8) -> dict:
    """All that is known of a data set before a run, in values that JSON can hold.

    Programs may rely on: documents, sentences, tokens (of both splits), unknown_rate, duplicate_documents, skipped
    (reason -> count), label_balance (share of label 1), one_segment_share, mask_rate, packing_density and
    length_histogram ({"edges", "counts"} of an epoch's examples, as of np.histogram). A share is null where it makes no
    sense, such as label_balance without labels. `warnings` are sentences, each with a value and its fix.

    About `rows` rows are measured, whole batches of them if data.buckets; the first `shown` examples are spelled out.
    Takes a second for the rows and one for every million sentences. Raises DataError where training would: for another
    tokenizer than the data set's, or no text to train on.
    """
    dataset.check_tokenizer(prepared, tokenizer)
    values = _contents(prepared, tokenizer) | _epoch(config, prepared)
    values |= _sample(config, prepared, tokenizer, rows, shown)
    if config.data.buckets:  # the plan does not know which row lengths batches get
        values["packing_density"] = values["sample"]["density"]
    return values | {"warnings": [*_text_warnings(values), *_row_warnings(config, values)]}


def _contents(prepared: Prepared, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the data set holds, whatever the recipe makes of it."""
    summary, counts_V = prepared.summary, prepared.token_counts
    digests_D = np.concatenate((prepared.train.digests, prepared.validation.digests))
    sizes_D = np.concatenate([np.diff(split.document_offsets) for split in (prepared.train, prepared.validation)])
    by_size = np.bincount(np.frexp(sizes_D)[1] - 1)  # 1, 2-3, 4-7, ..
    unused = float(np.mean(np.delete(counts_V, astuple(tokenizer.special)) == 0))
    order_V = np.argsort(-counts_V, kind="stable")
    used = int(np.count_nonzero(counts_V))
    ranks = np.unique(np.geomspace(1, used, 200).astype(int))
    return {key: summary[key] for key in ("documents", "sentences", "tokens", "skipped", "splits", "sources")} | {
        "unknown_rate": _share(summary["unknown"], summary["tokens"]),
        "duplicate_documents": len(digests_D) - len(np.unique(digests_D)),
        "directory": str(prepared.directory),
        "digest": prepared.digest,
        "vocabulary": {"size": tokenizer.vocab_size, "digest": tokenizer.digest, "unused": unused},
        "mask": tokenizer.pieces[tokenizer.special.mask],
        "frequent_tokens": [[tokenizer.pieces[i], int(counts_V[i])] for i in order_V[: min(20, used)].tolist()],
        "token_ranks": {"ranks": ranks.tolist(), "counts": counts_V[order_V[ranks - 1]].tolist()},
        "sentences_per_document": {"edges": [2**i for i in range(len(by_size) + 1)], "counts": by_size.tolist()},
    }


def _epoch(config: Config, prepared: Prepared) -> dict[str, Any]:
    """What the plan of an epoch says, from lengths alone. Where a random B is short, that is a few tokens too many."""
    data, rows_of_run = config.data, config.run.steps * config.data.batch_size
    # The plan itself, once: `epoch_rows` and `packing_density` would each make it anew.
    planned = order.sources(data, prepared.train, config.run.seed)
    counts_l = np.sum([np.bincount(s.plan.lengths_N, minlength=data.seq_len + 1) for s in planned], axis=0)
    rows = sum(source.rows_per_epoch for source in planned)
    tokens = int(counts_l @ np.arange(data.seq_len + 1))
    edges = np.unique([0, *range(data.seq_len, 0, -math.ceil(data.seq_len / 16))])
    binned, _ = np.histogram(np.arange(data.seq_len + 1), edges, weights=counts_l)
    sources = [dict(source) for source in prepared.summary["sources"]]
    if data.mix:
        for source, part, share in zip(sources, planned, data.mix, strict=True):
            source["epochs"] = rows_of_run * share / sum(data.mix) / part.rows_per_epoch
    held_out = {"documents": len(prepared.validation.digests), "examples": 0, "problem": ""}
    try:
        found = order.sources(replace(data, mix=()), prepared.validation, config.run.seed)
        held_out["examples"] = len(found[0].plan)
    except DataError as error:
        held_out["problem"] = str(error)
    return {
        "packing_density": tokens / (rows * data.seq_len),
        "length_histogram": {"edges": edges.tolist(), "counts": binned.astype(int).tolist()},
        "epoch": {"examples": int(counts_l.sum()), "rows": rows, "tokens": tokens},
        "epochs": rows_of_run / rows,
        "sources": sources,
        "validation": held_out,
    }


def _sample(config: Config, prepared: Prepared, tokenizer: Tokenizer, rows: int, shown: int) -> dict[str, Any]:
    """What the first rows of the run hold."""
    data = config.data
    if not data.buckets:  # then a row is the same whatever batch it is in
        data = replace(data, batch_size=max(1, min(data.batch_size, rows)))
    scheme = masking.scheme(data, tokenizer, prepared.token_counts)
    budget_l = np.array([0] + [masking.budget(scheme, length) for length in range(1, data.seq_len + 1)])
    make = train_maker(data, prepared, tokenizer, seed=config.run.seed)
    n, most = Counter[str](), 0
    examples: list[dict] = []
    for number in range(max(1, rows // data.batch_size)):
        batch = make(number)
        wanted_B, found = _count(batch, budget_l, scheme.mask_id)
        n.update(found)
        most = max(most, int(wanted_B.max()))
        told = spelled.examples(batch, number * data.batch_size, data, tokenizer)
        examples += islice(told, shown - len(examples))
    return {
        "label_balance": _share(n["label_1"], n["labelled"]),
        "one_segment_share": _share(n["examples"] - n["labelled"], n["examples"]) if data.pairs else None,
        "mask_rate": _share(n["predicted"], n["tokens"]),
        "dropped_masks": _share(n["wanted"] - n["predicted"], n["wanted"]),
        "mask_shares": list(data.mask_shares),
        "replaced": {kind: _share(n[kind], n["predicted"]) for kind in ("mask", "random", "itself")},
        "sample": {key: n[key] for key in ("rows", "examples", "labelled", "tokens", "predicted")}
        | {"density": _share(n["tokens"], n["slots"]), "most_wanted": most},
        "shown": examples,
    }


def _count(batch: Batch, budget_l: np.ndarray, mask_id: int) -> tuple[np.ndarray, dict[str, int]]:
    """How many tokens each row would have predicted with slots for all, [B], and the sums of all else over a batch."""
    segments_BL, real_BP = batch["segments"], batch["mlm_weights"] > 0
    B, K = batch["pair_positions"].shape
    keys_BL = segments_BL + (K + 1) * np.arange(B)[:, None]
    lengths_BK = np.bincount(keys_BL.ravel(), minlength=B * (K + 1)).reshape(B, K + 1)[:, 1:]
    wanted_B = budget_l[lengths_BK].sum(axis=1)
    labelled_BK = batch["pair_weights"] > 0
    shown_k = np.take_along_axis(batch["tokens"], batch["mlm_positions"], axis=1)[real_BP]
    masked_k, same_k = shown_k == mask_id, shown_k == batch["mlm_labels"][real_BP]
    counts = {
        "rows": B,
        "slots": segments_BL.size,
        "tokens": np.count_nonzero(segments_BL),
        "examples": np.count_nonzero(lengths_BK),
        "labelled": np.count_nonzero(labelled_BK),
        "label_1": np.count_nonzero(batch["pair_labels"][labelled_BK]),
        "wanted": wanted_B.sum(),
        "predicted": len(shown_k),
        "mask": np.count_nonzero(masked_k),
        "itself": np.count_nonzero(same_k),
        "random": np.count_nonzero(~masked_k & ~same_k),
    }
    return wanted_B, {key: int(count) for key, count in counts.items()}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _text_warnings(values: dict[str, Any]) -> Iterator[str]:
    """What looks wrong in the data set, whatever the recipe makes of it: the value, then the fix."""
    duplicates, held_out = values["duplicate_documents"], values["validation"]
    if (unknown := values["unknown_rate"]) > 0.01:
        fix = "train a tokenizer on it with `bertjax tokenizer`, or check data.tokenizer and data.case"
        yield f"unknown_rate = {percent(unknown)}: the vocabulary does not fit the text; {fix}"
    if (unused := values["vocabulary"]["unused"]) > 0.5:
        yield f"vocabulary: {percent(unused)} of its pieces never occur; train a smaller tokenizer, or add text"
    if (share := duplicates / values["documents"]) > 0.01:
        yield f"duplicate_documents = {duplicates:,}, {percent(share)} of all: remove the copies from data.source"
    for reason, count in values["skipped"].items():
        whole, fix = _SKIPPED.get(reason, ("documents", "check data.source"))
        if (share := count / values[whole]) > 0.01:
            yield f"skipped: {reason} = {count:,}, which is {percent(share)} of the number of {whole}; {fix}"
    if held_out["problem"]:
        yield held_out["problem"]
    elif held_out["examples"] < 1000:
        fix = "raise data.holdout and prepare the data set again"
        yield f"validation: {held_out['examples']:,} examples make a noisy evaluation; {fix}"


def _row_warnings(config: Config, values: dict[str, Any]) -> Iterator[str]:
    """What looks wrong in the rows that training will see: the value, then the fix."""
    data, sample, balance = config.data, values["sample"], values["label_balance"]
    if balance is not None and abs(balance - 0.5) > 5 * 0.5 / sample["labelled"] ** 0.5:
        flaws = "data.original_flaws gives chunks of one sentence label 1; set it to False"
        fix = flaws if data.original_flaws else "compare with another run.seed"
        yield f"label_balance = {percent(balance)} of {sample['labelled']:,} examples, not 50 %: {fix}"
    if (alone := values["one_segment_share"] or 0.0) > 0.2:
        fix = "blank lines belong between documents, not sentences; short documents suit data.examples = full_sentences"
        yield f"one_segment_share = {percent(alone)}: these train no pair loss; {fix}"
    if (dropped := values["dropped_masks"] or 0.0) > 0.05:
        few = "too few tokens can be masked; see unknown_rate and length_histogram"
        most = sample["most_wanted"]
        fix = f"set data.max_predictions = {most}" if most > data.max_predictions else few
        yield f"dropped_masks = {percent(dropped)} of the tokens wanted: {fix}"
    if (density := values["packing_density"]) < 0.7 and data.packing == 1 and data.seq_len >= 256:
        fix = "set data.packing = 8" + (" and data.buckets = ()" if data.buckets else "")
        yield f"packing_density = {percent(density)}: the rest of the rows is padding; {fix}"
    if (epochs := max([values["epochs"], *(source.get("epochs", 0.0) for source in values["sources"])])) > 40:
        yield f"epochs = {epochs:,.1f}: the run repeats text that often; lower run.steps or add text to data.source"


def percent(share: float | None) -> str:
    """A share as people read it; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.1f} %"
