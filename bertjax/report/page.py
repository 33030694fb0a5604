"""The data report as people read it: a table for a terminal, and a page of HTML with plots.

All text of the data set is shown as text: no control characters in a terminal, no tags in a page.
"""

import base64
import html
import io
import textwrap
from collections.abc import Iterator

import numpy as np

from bertjax.report.prepared import percent


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
    replaced = [percent(values["replaced"][kind]) for kind in ("mask", "random", "itself")]
    skipped = ", ".join(f"{reason} {count:,}" for reason, count in values["skipped"].items())
    edges, counts = (values["length_histogram"][key] for key in ("edges", "counts"))
    bars = "".join("▁▂▃▄▅▆▇█"[-(-7 * count // max(counts))] for count in counts)
    yield "documents", f"{values['documents']:,}", f"{held_out['documents']:,} of them held out"
    yield "sentences", f"{values['sentences']:,}", f"{values['sentences'] / values['documents']:,.1f} a document"
    yield "tokens", f"{values['tokens']:,}", f"{values['tokens'] / values['sentences']:,.1f} a sentence"
    yield (
        "unknown_rate",
        percent(values["unknown_rate"]),
        "of the tokens stand for words that are not known",
    )
    yield "duplicate_documents", f"{values['duplicate_documents']:,}", "repeat the text of an earlier one"
    yield "skipped", f"{sum(values['skipped'].values()):,}", skipped or "nothing"
    yield "label_balance", percent(values["label_balance"]), f"label 1, of {sample['labelled']:,} examples with one"
    yield "one_segment_share", percent(values["one_segment_share"]), "of the examples have no second segment"
    yield "mask_rate", percent(values["mask_rate"]), "of all tokens, special ones too, are to be predicted"
    yield "replaced", replaced[0], f"of these show [MASK], {replaced[1]} a random token, {replaced[2]} themselves"
    yield (
        "dropped_masks",
        percent(values["dropped_masks"]),
        "of the budget is not used: no slot or no token is left",
    )
    yield "packing_density", percent(values["packing_density"]), "of the positions of an epoch's rows hold a token"
    yield "length_histogram", bars, f"examples by their tokens, {edges[0]} to {edges[-1]}"
    yield "epoch", f"{epoch['examples']:,}", f"examples in {epoch['rows']:,} rows with {epoch['tokens']:,} tokens"
    yield "epochs", f"{values['epochs']:,.2f}", "make a run of run.steps updates"
    yield "validation", f"{held_out['examples']:,}", "examples of held-out documents"
    yield "vocabulary", f"{vocabulary['size']:,}", f"pieces; {percent(vocabulary['unused'])} of them never occur"
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
    shares.bar_label(bars, [percent(share) for share in measured], padding=8, fontsize=8)
    shares.plot((*values["mask_shares"], 0.5), kinds, "|", color="black", markersize=22, label="expected")
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


def _plain(content: str) -> str:
    """Without control characters, which could steer a terminal or turn the direction of a line."""
    return "".join(character if character.isprintable() else "\ufffd" for character in content)


def _escape(content: str) -> str:
    return html.escape(_plain(content))
