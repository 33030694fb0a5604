"""What a prepared data set holds and what training will see of it: numbers, a table, a page, and what looks wrong.

Counts come from the index and the plan of an epoch; shares that depend on chance are measured on the first rows of the
run. Nothing is read from the shards but these rows, and no loop in Python runs over documents or sentences.

Shape letters, beside those of `bertjax.batch`: V vocabulary, D documents, l lengths, k predicted tokens, n tokens.
"""

import base64
import html
import io
import math
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, replace
from itertools import islice
from typing import Any

import numpy as np

from bertjax.config.schema import Config, DataConfig
from bertjax.data import masking, pipeline
from bertjax.data.dataset import Prepared
from bertjax.data.tokenizer import Tokenizer
from bertjax.errors import DataError

_LABELS = {"nsp": ("true next", "random next"), "sop": ("in order", "swapped")}

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
    pipeline.check(prepared, tokenizer)
    values = _contents(prepared, tokenizer) | _epoch(config, prepared)
    values |= _sample(config, prepared, tokenizer, rows, shown)
    if config.data.buckets:  # the plan does not know which row lengths batches get
        values["packing_density"] = values["sample"]["density"]
    return values | {"warnings": [*_text_warnings(values), *_row_warnings(config, values)]}


def _contents(prepared: Prepared, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the data set holds, whatever is made of it."""
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
    """What the plan of an epoch says, from lengths alone; for a random B that is short it says a little too much."""
    data, rows_of_run = config.data, config.run.steps * config.data.batch_size
    # The plan itself, once: each of the pipeline's public functions makes it anew.
    planned = pipeline.sources(data, prepared.train, config.run.seed)
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
        found = pipeline.sources(replace(data, mix=()), prepared.validation, config.run.seed)
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
    wishes_l = np.array([0] + [masking.budget(scheme, length) for length in range(1, data.seq_len + 1)])
    make = pipeline.train_maker(data, prepared, tokenizer, seed=config.run.seed)
    n, most = Counter[str](), 0
    examples: list[dict] = []
    for number in range(max(1, rows // data.batch_size)):
        batch = make(number)
        wished_B, found = _count(batch, wishes_l, scheme.mask_id)
        n.update(found)
        most = max(most, int(wished_B.max()))
        told = _tell(batch, number * data.batch_size, data, tokenizer)
        examples += islice(told, shown - len(examples))
    return {
        "label_balance": _share(n["label_1"], n["labelled"]),
        "one_segment_share": _share(n["examples"] - n["labelled"], n["examples"]) if data.pairs else None,
        "mask_rate": _share(n["predicted"], n["tokens"]),
        "dropped_masks": _share(n["wished"] - n["predicted"], n["wished"]),
        "replaced": {kind: _share(n[kind], n["predicted"]) for kind in ("mask", "random", "itself")},
        "sample": {key: n[key] for key in ("rows", "examples", "labelled", "tokens", "predicted")}
        | {"density": _share(n["tokens"], n["slots"]), "most_wished": most},
        "shown": examples,
    }


def _count(batch: pipeline.Batch, wishes_l: np.ndarray, mask_id: int) -> tuple[np.ndarray, dict[str, int]]:
    """The tokens to be predicted that each row wishes for, [B], and the sums of all else over a batch."""
    segments_BL, real_BP = batch["segments"], batch["mlm_weights"] > 0
    B, K = batch["pair_positions"].shape
    keys_BL = segments_BL + (K + 1) * np.arange(B)[:, None]
    lengths_BK = np.bincount(keys_BL.ravel(), minlength=B * (K + 1)).reshape(B, K + 1)[:, 1:]
    wished_B = wishes_l[lengths_BK].sum(axis=1)
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
        "wished": wished_B.sum(),
        "predicted": len(shown_k),
        "mask": np.count_nonzero(masked_k),
        "itself": np.count_nonzero(same_k),
        "random": np.count_nonzero(~masked_k & ~same_k),
    }
    return wished_B, {key: int(count) for key, count in counts.items()}


def _tell(batch: pipeline.Batch, first_row: int, data: DataConfig, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """Each example of a batch in words: its row, its label, its text, and the parts of it as [before, after]."""
    for b, segments_L in enumerate(batch["segments"]):
        labels_L = np.full(len(segments_L), -1)
        used = batch["mlm_weights"][b] > 0
        labels_L[batch["mlm_positions"][b][used]] = batch["mlm_labels"][b][used]
        for k in range(segments_L.max()):
            label = "no label"
            if batch["pair_weights"][b, k] > 0:
                label = _LABELS[data.examples][batch["pair_labels"][b, k]]
            inside = segments_L == k + 1
            parts = list(_parts(batch["tokens"][b][inside], labels_L[inside], tokenizer))
            text = "".join(before if after is None else f"{{{before}→{after}}}" for before, after in parts)
            yield {"row": first_row + b, "label": label, "text": text, "parts": parts}


def _parts(tokens_n: np.ndarray, labels_n: np.ndarray, tokenizer: Tokenizer) -> Iterator[tuple[str, str | None]]:
    """Readable stretches of an example with None, predicted tokens (`labels_n` >= 0) with what stands there instead."""
    special = list(astuple(tokenizer.special))

    def spelled(ids: np.ndarray) -> str:  # SentencePiece decodes special pieces, and a space alone, to nothing
        return (ids[0] not in special and tokenizer.decode(ids).strip()) or tokenizer.pieces[ids[0]]

    original_n = np.where(labels_n >= 0, labels_n, tokens_n)
    special_n, predicted_n = np.isin(original_n, special), labels_n >= 0
    alone_n = special_n | predicted_n
    begins_n = tokenizer.starts_word[original_n] | special_n
    begins_n[1:] |= special_n[:-1]
    for stretch in np.split(np.arange(len(tokens_n)), np.flatnonzero(alone_n[1:] | alone_n[:-1]) + 1):
        at, before = stretch[0], spelled(original_n[stretch])
        if not begins_n[at]:
            before = before.removeprefix("##")
        elif at:
            yield " ", None
        same = tokens_n[at] == original_n[at]
        yield before, None if not predicted_n[at] else before if same else spelled(tokens_n[stretch])


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _text_warnings(values: dict[str, Any]) -> Iterator[str]:
    """What looks wrong in the data set, whatever is made of it: the value, then the fix."""
    duplicates, held_out = values["duplicate_documents"], values["validation"]
    if (unknown := values["unknown_rate"]) > 0.01:
        fix = "train a tokenizer on it with `bertjax tokenizer`, or check data.tokenizer and data.lower_case"
        yield f"unknown_rate = {_percent(unknown)}: the vocabulary does not fit the text; {fix}"
    if (unused := values["vocabulary"]["unused"]) > 0.5:
        yield f"vocabulary: {_percent(unused)} of its pieces never occur; train a smaller tokenizer, or add text"
    if (share := duplicates / values["documents"]) > 0.01:
        yield f"duplicate_documents = {duplicates:,}, {_percent(share)} of all: remove the copies from data.source"
    for reason, count in values["skipped"].items():
        whole, fix = _SKIPPED.get(reason, ("documents", "check data.source"))
        if (share := count / values[whole]) > 0.01:
            yield f"skipped: {reason} = {count:,}, which is {_percent(share)} of the number of {whole}; {fix}"
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
        yield f"label_balance = {_percent(balance)} of {sample['labelled']:,} examples, not 50 %: {fix}"
    if (alone := values["one_segment_share"] or 0.0) > 0.2:
        fix = "blank lines belong between documents, not sentences; short documents suit data.examples = full_sentences"
        yield f"one_segment_share = {_percent(alone)}: these train no pair loss; {fix}"
    if (dropped := values["dropped_masks"] or 0.0) > 0.05:
        few = "too few tokens can be masked; see unknown_rate and length_histogram"
        most = sample["most_wished"]
        fix = f"set data.max_predictions = {most}" if most > data.max_predictions else few
        yield f"dropped_masks = {_percent(dropped)} of the tokens wanted: {fix}"
    if (density := values["packing_density"]) < 0.7 and data.packing == 1 and data.seq_len >= 256:
        fix = "set data.packing = 8" + (" and data.buckets = ()" if data.buckets else "")
        yield f"packing_density = {_percent(density)}: the rest of the rows is padding; {fix}"
    if (epochs := max([values["epochs"], *(source.get("epochs", 0.0) for source in values["sources"])])) > 40:
        yield f"epochs = {epochs:,.1f}: the run repeats text that often; lower run.steps or add text to data.source"


def text(values: dict) -> str:
    """The report as a table for a terminal, at most 120 columns wide; below it warnings and the first examples."""
    lines = [(f"data set {values['directory']}", ""), ("", "")]
    lines += [(f"{key:<20}{value:>16}  {note}", " " * 38) for key, value, note in _table(values)]
    lines += [("", ""), *((f"warning: {sentence}", " " * 9) for sentence in values["warnings"])]
    for example in values["shown"]:
        words = example["text"] if len(example["text"]) < 480 else f"{example['text'][:480].rsplit(' ', 1)[0]} …"
        lines += [("", ""), (f"row {example['row']}, {example['label']}", ""), (f"  {words}", "  ")]
    return "".join(textwrap.fill(_plain(line), 120, subsequent_indent=indent) + "\n" for line, indent in lines)


def _table(values: dict) -> Iterator[tuple[str, str, str]]:
    """(key, value, what it is), for each line of the table."""
    epoch, held_out, vocabulary, sample = (values[key] for key in ("epoch", "validation", "vocabulary", "sample"))
    replaced = [_percent(values["replaced"][kind]) for kind in ("mask", "random", "itself")]
    skipped = ", ".join(f"{reason} {count:,}" for reason, count in values["skipped"].items())
    edges, counts = (values["length_histogram"][key] for key in ("edges", "counts"))
    bars = "".join("▁▂▃▄▅▆▇█"[-(-7 * count // max(counts))] for count in counts)
    yield "documents", f"{values['documents']:,}", f"{held_out['documents']:,} of them held out"
    yield "sentences", f"{values['sentences']:,}", f"{values['sentences'] / values['documents']:,.1f} a document"
    yield "tokens", f"{values['tokens']:,}", f"{values['tokens'] / values['sentences']:,.1f} a sentence"
    yield "unknown_rate", _percent(values["unknown_rate"]), "of the tokens are no word or part of one"
    yield "duplicate_documents", f"{values['duplicate_documents']:,}", "have the text of one before them"
    yield "skipped", f"{sum(values['skipped'].values()):,}", skipped or "nothing"
    yield "label_balance", _percent(values["label_balance"]), f"label 1, of {sample['labelled']:,} examples with one"
    yield "one_segment_share", _percent(values["one_segment_share"]), "of the examples have no second segment"
    yield "mask_rate", _percent(values["mask_rate"]), "of all tokens, special ones too, are to be predicted"
    yield "replaced", replaced[0], f"of these show [MASK], {replaced[1]} a random token, {replaced[2]} themselves"
    yield "dropped_masks", _percent(values["dropped_masks"]), "of the tokens wanted have no slot, or there are none"
    yield "packing_density", _percent(values["packing_density"]), "of the positions of an epoch's rows hold a token"
    yield "length_histogram", bars, f"examples by their tokens, {edges[0]} to {edges[-1]}"
    yield "epoch", f"{epoch['examples']:,}", f"examples in {epoch['rows']:,} rows with {epoch['tokens']:,} tokens"
    yield "epochs", f"{values['epochs']:,.2f}", "make a run of run.steps updates"
    yield "validation", f"{held_out['examples']:,}", "examples of held-out documents"
    yield "vocabulary", f"{vocabulary['size']:,}", f"pieces; {_percent(vocabulary['unused'])} of them never occur"
    for source in values["sources"]:
        epochs = f", {source['epochs']:,.2f} epochs" if "epochs" in source else ""
        yield "source", f"{sum(source['documents'].values()):,}", f"documents of {source['source']}{epochs}"
    yield "frequent_tokens", "", " · ".join(f"{piece} {count:,}" for piece, count in values["frequent_tokens"])


def page(values: dict) -> str:
    """The report as one HTML page that needs nothing else: table, warnings, plots, examples. Takes about a second."""
    lines = (f"<th>{key}</th><td>{value}</td><td>{_escape(note)}</td>" for key, value, note in _table(values))
    warnings = "".join(f"<li>{_escape(sentence)}</li>" for sentence in values["warnings"])
    plots = "".join(
        f'<figure><figcaption>{title}</figcaption><img alt="{title}" src="data:image/png;base64,{image}"></figure>'
        for title, image in _plots(values)
    )
    shown = ""
    for example in values["shown"]:
        parts = (_marked(before, after, values["mask"]) for before, after in example["parts"])
        shown += f"<p><b>row {example['row']} · {example['label']}</b>{''.join(parts)}</p>"
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>bertjax data report</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>{_STYLE}</style></head><body>
<h1>Data report</h1><p class="about">{_escape(values["directory"])} · digest {_escape(values["digest"][:12])}</p>
{f'<ul class="warnings">{warnings}</ul>' if warnings else '<p class="fine">Nothing looks wrong.</p>'}
<table><tr>{"</tr><tr>".join(lines)}</tr></table>
<h2>Distributions</h2><div class="plots">{plots}</div>
<h2>First examples of the run</h2>
<p class="about">Tokens to be predicted, and what stands there instead: <mark class="mask">[MASK]</mark>
<mark class="random">a random token</mark> <mark class="itself">the token itself</mark></p>
<div class="shown">{shown}</div>
</body></html>
"""


def _marked(before: str, after: str | None, mask: str) -> str:
    if after is None:
        return _escape(before)
    kind = "itself" if before == after else "mask" if after == mask else "random"
    return f'<mark class="{kind}">{_escape(before)}<i>{_escape(after)}</i></mark>'


def _plots(values: dict) -> Iterator[tuple[str, str]]:
    """(title, PNG in base 64) of each plot."""
    from matplotlib.figure import Figure  # here: it takes half a second to import

    titles = "Length of examples", "Length of documents", "Frequency of tokens", "Predicted tokens and labels"
    figures = [Figure(figsize=(5.4, 3.0), layout="constrained") for _ in titles]
    lengths, sizes, tokens, shares = axes = [figure.subplots(subplot_kw={"axisbelow": True}) for figure in figures]
    edges, counts = (values["length_histogram"][key] for key in ("edges", "counts"))
    lengths.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=_BLUE, edgecolor="white")
    lengths.set(xlabel="tokens of an example, special ones too", ylabel="examples of an epoch")
    edges, counts = (values["sentences_per_document"][key] for key in ("edges", "counts"))
    names = [str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in zip(edges, edges[1:], strict=False)]
    sizes.bar(names, counts, color=_BLUE, edgecolor="white")
    sizes.tick_params(axis="x", rotation=30 if len(names) > 7 else 0, labelsize=8)
    sizes.set(xlabel="sentences of a document", ylabel="documents")
    ranks, counts = (values["token_ranks"][key] for key in ("ranks", "counts"))
    tokens.loglog(ranks, counts, color=_BLUE, linewidth=2, label="tokens of the train split")
    tokens.loglog(ranks, counts[0] / np.array(ranks), "--", color="grey", linewidth=1, label="1 / rank")
    tokens.set(xlabel="rank", ylabel="occurrences", ylim=(0.7, None))
    kinds = "shows [MASK]", "shows a random token", "shows itself", "label 1"
    measured = [*(values["replaced"][kind] for kind in ("mask", "random", "itself")), values["label_balance"]]
    bars = shares.barh(kinds, [share or 0.0 for share in measured], color=_BLUE, height=0.6)
    shares.bar_label(bars, [_percent(share) for share in measured], padding=8, fontsize=8)
    shares.plot((0.8, 0.1, 0.1, 0.5), kinds, "|", color="black", markersize=22, label="expected")
    shares.set(xlabel="share", xlim=(0, 1))
    shares.invert_yaxis()
    for title, figure, axis in zip(titles, figures, axes, strict=True):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        if axis in (tokens, shares):
            axis.legend(frameon=False, fontsize=8, markerscale=0.4)
        content = io.BytesIO()
        figure.savefig(content, dpi=144, format="png")
        yield title, base64.b64encode(content.getvalue()).decode()


_BLUE = "#3b6ea8"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 70rem; margin: 2rem auto }
h1, h2 { font-weight: 600; margin: 1.5rem 0 .5rem } .about { color: #666 } figure { margin: 0 } img { width: 100% }
table { border-collapse: collapse } th, td { padding: .2rem .8rem; border-bottom: 1px solid #e4e4e4; text-align: left;
  vertical-align: top; overflow-wrap: anywhere } th { font-weight: 500; white-space: nowrap }
td:nth-child(2) { text-align: right; white-space: nowrap } td:nth-child(3) { color: #555 }
.warnings { background: #fff6e0; border-left: 4px solid #e0a000; padding: .7rem 1rem .7rem 2rem }
.fine { background: #eaf6ea; border-left: 4px solid #4a9a4a; padding: .7rem 1rem }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem }
.shown p { border: 1px solid #e4e4e4; border-radius: 6px; padding: .6rem .9rem; overflow-wrap: anywhere }
b { display: block; font-weight: 500; color: #666 } mark { border-radius: 3px; padding: 0 .2em }
mark i { opacity: .65; font-size: .85em; margin-left: .3em }
.mask { background: #ffe08a } .random { background: #f7c6c6 } .itself { background: #cfe8cf }
"""


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.1f} %"


def _plain(content: str) -> str:
    """Without control characters, which could steer a terminal or turn the direction of a line."""
    return "".join(character if character.isprintable() else "\ufffd" for character in content)


def _escape(content: str) -> str:
    return html.escape(_plain(content))
