"""The report as people read it: every number is there, it fits a terminal, and text is shown as text."""

import json
from collections import Counter
from html.parser import HTMLParser

import pytest
from reported import change, told

from bertjax.report.page import page, text

CONTRACT = {
    *("documents", "sentences", "tokens", "unknown_rate", "duplicate_documents", "skipped", "label_balance"),
    *("one_segment_share", "mask_rate", "packing_density", "length_histogram"),
}
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "table", "tr", "th", "td", "ul", "li"),
    *("figure", "figcaption", "img", "mark", "i", "b"),
}


class Parser(HTMLParser):
    """The tags, the text and the attributes of a page; fails on tags that do not match."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.open, self.shown = Counter(), [], [], ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown += data


def test_page_shows_text_as_text(faults):
    values = faults
    evil = "<script>alert('&amp;')</script>\x1b[31m\u202e<img src=x onerror=y>\""
    planted = {
        "directory": evil,
        "digest": evil,
        "mask": evil,
        "warnings": [*values["warnings"], evil],
        "sources": [{"source": evil, "documents": {"train": 1}}],
        "frequent_tokens": [[evil, 1]],
        "skipped": {evil: 1},
        "shown": [
            {"row": 0, "label": "swapped", "text": evil, "parts": [[evil, None], [evil, evil], [evil, "x" + evil]]}
        ],
    }
    seen = evil.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")
    shown = [*values["shown"], *planted["shown"]]
    shown_page = page(values | planted | {"sources": [*values["sources"], *planted["sources"]], "shown": shown})
    parsed = Parser(shown_page)
    assert set(parsed.tags) <= TAGS and parsed.tags["img"] >= 3
    assert "<script>a.txt" in parsed.shown  # the name of a file
    addresses = [value for name, value in parsed.attributes if name in ("src", "href")]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "://" not in shown_page and "\x1b" not in shown_page
    assert parsed.shown.count(seen) >= 8 and parsed.tags["mark"] > 3 + 2
    table = text(values | planted)
    assert "\x1b" not in table and "\u202e" not in table


@pytest.mark.parametrize("examples", ["nsp", "full_sentences"])
def test_text_has_every_key_and_fits_a_terminal(clean, examples):
    values = told(change(clean, examples=examples))
    assert values.keys() >= CONTRACT
    shown = text(values)
    table = shown.split("\n\n")[1].splitlines()
    names = [line.split()[0] for line in table]
    assert set(names) >= CONTRACT
    assert len(table) < 30 and max(map(len, shown.splitlines())) <= 120
    assert all(example["label"] in shown for example in values["shown"])
    # As it is read back from a file, whatever the order of its keys.
    again = json.loads(json.dumps(values, allow_nan=False, sort_keys=True))
    assert text(again) == shown
    assert examples == "nsp" or Parser(page(again)).tags["img"] >= 3


def test_text_shows_rare_lengths_and_cuts_long_examples(faults):
    long = {"row": 0, "label": "swapped", "text": "abcdef " * 200}
    histogram = {"edges": [0, 1, 2, 3], "counts": [0, 1, 99]}
    table = text(faults | {"shown": [long], "length_histogram": histogram})
    assert " ▁▂█ " in table and table.split()[-69:] == ["abcdef"] * 68 + ["…"]
