"""The report counts what is there, measures what the rows hold, warns of what was planted, and shows text as text."""

import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import islice

import numpy as np
import pytest

from bertjax.config.schema import Config, DataConfig, RunConfig
from bertjax.corpus import prepare
from bertjax.data import dataset, pipeline, report, tokenizer
from bertjax.errors import DataError

CONTRACT = {
    *("documents", "sentences", "tokens", "unknown_rate", "duplicate_documents", "skipped", "label_balance"),
    *("one_segment_share", "mask_rate", "packing_density", "length_histogram"),
}
WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIAL, *WORDS, "##s", ".", "<", ">", "/", "&", "script", "cafe"]
ROWS = 500
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "table", "tr", "th", "td", "ul", "li"),
    *("figure", "figcaption", "img", "mark", "i", "b"),
}


def make(folder, sources, **data):
    """(config, data set, tokenizer) of the named files: bytes of text by name."""
    for name, content in sources.items():
        (folder / name).write_bytes(content)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    source = ",".join(str(folder / name) for name in sources)
    config = Config(data=DataConfig(**{"source": source, "batch_size": 50, "seq_len": 32} | data))
    config = replace(config, run=RunConfig(steps=10))
    prepare.prepare(config.data, folder / "vocab.txt", folder / "<b>data", runner=prepare.local(1))
    return config, dataset.load(folder / "<b>data"), tokenizer.load(folder / "vocab.txt", lower_case=True)


def change(made, **data):
    config, *rest = made
    return replace(config, data=replace(config.data, **data)), *rest


def prose(documents, sentences, seed):
    """Text of numbered documents with that many sentences, each of 4 to 9 words and a full stop."""
    rng = np.random.default_rng(seed)
    lines = [
        [" ".join(rng.choice(WORDS, rng.integers(4, 10))) + "." for _ in range(count)]
        for count in rng.choice(sentences, documents)
    ]
    return "\n\n".join("\n".join(document) for document in lines)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """More than a thousand documents in which nothing is wrong."""
    text = prose(1300, [4, 8, 12], seed=1).encode()
    return make(tmp_path_factory.mktemp("clean"), {"clean.txt": text}, holdout=0.5)


@pytest.fixture(scope="module")
def faults(faulty):
    return told(faulty)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A little of everything that can be wrong; what was planted where is counted in the test of it."""
    paragraphs = [
        b"w1 w2 xyzzy.\nw3 plugh.",
        b"w1 w2 xyzzy.\nw3 plugh.",
        b"caf\xe9 w1.\n\xe9 w2.",
        b"w1 \0w2.\nw3 w4.",
        b"w5 " * 400_000,
        b"\1",
        b"<script>w6</script> & w7s.",
        b"w1 w2 xyzzy.\nw3 plugh.",
    ]
    lines = ['{"text": ""}', '{"text": " "}', '{"text": "w8 w9."}', "no JSON", '{"other": "w1."}']
    lines += ['{"text": "w\\u00008."}']
    sources = {"<script>a.txt": b"\n\n".join(paragraphs) + b"\n", "b.jsonl": "\n".join(lines).encode()}
    return make(tmp_path_factory.mktemp("faulty"), sources, holdout=0.001)


def told(made, **how):
    return report.report(*made, **{"rows": ROWS} | how)


def rows_of(made, rows=ROWS):
    """Rows of the first batches of training, each a dict of arrays, and the number of rows in them."""
    config, prepared, vocabulary = made
    batches = pipeline.train_batches(config.data, prepared, vocabulary, seed=config.run.seed)
    taken = list(islice(batches, rows // config.data.batch_size))
    batches.close()
    return [{name: array[i] for name, array in batch.items()} for batch in taken for i in range(len(batch["tokens"]))]


def recount(made):
    """What `report` measures, counted example by example and slot by slot."""
    data = made[0].data
    n = Counter()
    for row in rows_of(made):
        n["slots"] += len(row["tokens"])
        for k in range(data.packing):
            length = int((row["segments"] == k + 1).sum())
            if length:
                n.update(examples=1, tokens=length, wished=data.mask_count or max(1, round(length * data.mask_rate)))
                two = row["token_types"][row["segments"] == k + 1].any()
                n.update(two=int(two), label_1=int(two and row["pair_labels"][k]))
        for at, label, weight in zip(row["mlm_positions"], row["mlm_labels"], row["mlm_weights"], strict=True):
            if weight:
                shown = int(row["tokens"][at])
                n["predicted"] += 1
                n["mask" if shown == PIECES.index("[MASK]") else "itself" if shown == label else "random"] += 1
    return n


def test_what_was_planted_is_counted(faults):
    values = faults
    # Above a million characters a line is two stretches, and so its document two documents.
    assert values["documents"] == 3 + 1 + 1 + 2 + 1 + 2
    assert values["sentences"] == 3 * 2 + 2 + 2 + 2 + 1 + 2
    assert values["tokens"] == 3 * 7 + 6 + 6 + 400_000 + 12 + 3 + 2
    assert values["unknown_rate"] == (3 * 2 + 1) / values["tokens"]
    assert values["duplicate_documents"] == 2
    assert values["skipped"] == {
        "bad_json_lines": 2,
        "bad_utf8_lines": 2,
        "cut_documents": 1,
        "documents_without_tokens": 1,
        "empty_documents": 2,
        "long_lines": 1,
        "nul_lines": 2,
    }
    assert sum(values["sentences_per_document"]["counts"]) == values["documents"]
    assert values["sentences_per_document"] == {"edges": [1, 2, 4], "counts": [5, 5]}
    assert [sum(source["documents"].values()) for source in values["sources"]] == [8, 2]
    assert values["splits"]["train"]["documents"] + values["validation"]["documents"] == values["documents"]


def test_copies_are_counted_in_both_splits(tmp_path):
    made = make(tmp_path, {"a.txt": b"".join(b"w%d w%d.\n\n" % (i % 20, i % 20) for i in range(100))}, holdout=0.5)
    values = told(made, rows=50)
    assert values["duplicate_documents"] == 80
    assert all(len(split.digests) % 5 == 0 < len(split.digests) for split in (made[1].train, made[1].validation))
    assert any("duplicate_documents = 80, 80.0 %" in warning for warning in values["warnings"])


def test_vocabulary_is_of_the_train_split(faulty, faults):
    values, counts = faults, faulty[1].token_counts
    ordinary = range(len(SPECIAL), len(PIECES))
    assert values["vocabulary"]["size"] == len(PIECES)
    assert values["vocabulary"]["unused"] == pytest.approx(sum(counts[i] == 0 for i in ordinary) / len(ordinary))
    assert values["frequent_tokens"][0] == ["w5", 400_000]
    assert all(counts[PIECES.index(piece)] == count for piece, count in values["frequent_tokens"])
    ranks, frequencies = values["token_ranks"]["ranks"], values["token_ranks"]["counts"]
    ordered = sorted(counts.tolist(), reverse=True)
    assert frequencies == [ordered[rank - 1] for rank in ranks] and ranks[-1] == np.count_nonzero(counts)


@pytest.mark.parametrize("examples", ["nsp", "sop", "full_sentences", "doc_sentences"])
@pytest.mark.parametrize("how", [{}, {"packing": 6, "seq_len": 64, "max_predictions": 5}])
def test_shares_are_those_of_the_rows(clean, examples, how):
    made = change(clean, examples=examples, **how)
    values, n = told(made), recount(made)
    assert values["mask_rate"] == n["predicted"] / n["tokens"]
    assert values["dropped_masks"] == (n["wished"] - n["predicted"]) / n["wished"]
    assert values["replaced"] == {kind: n[kind] / n["predicted"] for kind in ("mask", "random", "itself")}
    if made[0].data.pairs:
        assert values["one_segment_share"] == (n["examples"] - n["two"]) / n["examples"]
        assert values["label_balance"] == n["label_1"] / n["two"]
        assert abs(values["label_balance"] - 0.5) < 5 * 0.5 / n["two"] ** 0.5
    else:
        assert values["one_segment_share"] is values["label_balance"] is None
    assert values["sample"]["rows"] == ROWS


@pytest.mark.parametrize("packing", [1, 6])
def test_an_epoch_is_what_the_pipeline_plans(clean, packing):
    made = change(clean, packing=packing, seq_len=60, examples="doc_sentences")
    values = told(made)
    data, train = made[0].data, made[1].train
    (planned,) = pipeline.sources(data, train, 0)
    assert values["packing_density"] == pytest.approx(pipeline.packing_density(data, train, seed=0))
    assert values["epoch"]["rows"] == pipeline.epoch_rows(data, train, seed=0)
    (held_out,) = pipeline.sources(data, made[1].validation, 0)
    assert values["validation"] == {
        "documents": len(made[1].validation.digests),
        "examples": len(held_out.plan),
        "problem": "",
    }
    # No sentence is cut or lost here: all tokens of the split, and [CLS] and [SEP].
    assert values["epoch"]["tokens"] == train.sentence_lengths.sum() + 2 * values["epoch"]["examples"]
    assert values["epochs"] == 10 * data.batch_size / values["epoch"]["rows"]
    histogram = values["length_histogram"]
    assert histogram["edges"] == list(range(0, 61, 4))
    assert histogram["counts"] == np.histogram(planned.plan.lengths_N, histogram["edges"])[0].tolist()
    assert sum(histogram["counts"]) == values["epoch"]["examples"]


def test_rows_in_buckets_are_measured(clean):
    made = change(clean, buckets="16,32,64", seq_len=64, batch_size=30)
    values, n = told(made), recount(made)
    assert (
        values["packing_density"]
        == n["tokens"] / n["slots"]
        > values["epoch"]["tokens"] / (values["epoch"]["rows"] * 64)
    )


def test_rows_do_not_depend_on_the_batch_they_are_in(clean):
    small, large = told(change(clean, batch_size=10), rows=100), told(change(clean, batch_size=1000), rows=100)
    assert large["sample"] == small["sample"] and large["shown"] == small["shown"]


def test_a_mix_has_epochs_of_each_source(tmp_path):
    sources = {"a.txt": prose(300, [6], seed=2).encode(), "b.txt": prose(30, [6], seed=3).encode()}
    made = make(tmp_path, sources, mix="1,3", holdout=0.3)
    made = (replace(made[0], run=RunConfig(steps=1000)), *made[1:])
    values = told(made, rows=100)
    (held_out,) = pipeline.sources(change(made, mix="")[0].data, made[1].validation, 0)
    assert values["validation"]["examples"] == len(held_out.plan)
    small = values["sources"][1]["epochs"]
    rows = pipeline.sources(made[0].data, made[1].train, 0)[1].rows_per_epoch
    assert small == 1000 * 50 * 0.75 / rows > 10 * values["sources"][0]["epochs"]
    assert f"epochs = {small:,.1f}" in " ".join(values["warnings"])


def test_a_clean_data_set_has_no_warnings(clean):
    assert told(clean)["warnings"] == []


@pytest.mark.parametrize(
    ("data", "run", "expected"),
    [
        ({"seq_len": 256, "max_predictions": 40}, {}, "data.packing = 8"),
        ({}, {"steps": 100_000}, "epochs = "),
        ({"max_predictions": 3}, {}, "data.max_predictions = 5"),
        ({"packing": 4, "seq_len": 64, "max_predictions": 8}, {}, "data.max_predictions = 1"),
    ],
)
def test_settings_that_waste_are_named_with_the_fix(clean, data, run, expected):
    config, *rest = change(clean, **data)
    warnings = told((replace(config, run=replace(config.run, **run)), *rest))["warnings"]
    assert any(expected in warning for warning in warnings)


def test_the_slots_that_a_warning_names_are_enough(clean):
    made = change(clean, packing=4, seq_len=64, max_predictions=8)
    values = told(made)
    (warning,) = (warning for warning in values["warnings"] if "max_predictions" in warning)
    enough = int(warning.rsplit("= ", 1)[1])
    assert values["dropped_masks"] > 0.05
    assert told(change(made, max_predictions=enough))["dropped_masks"] == 0.0
    assert told(change(made, max_predictions=enough - 1))["dropped_masks"] > 0.0


def test_faults_of_the_text_are_named(faults):
    warnings = " ".join(faults["warnings"])
    for name in ("duplicate_documents = 2", "bad_json_lines = 2", "nul_lines = 2", "one_segment_share", "vocabulary"):
        assert name in warnings
    assert "unknown_rate" not in warnings  # of 400,000 tokens


def test_documents_of_one_sentence(tmp_path):
    made = make(tmp_path, {"a.txt": prose(400, [1], seed=4).replace("w1", "unheard").encode()}, holdout=0.0)
    values = told(made)
    assert values["one_segment_share"] == 1.0 and values["label_balance"] is None
    assert values["unknown_rate"] > 0.01 and values["validation"]["examples"] == 0
    flaws = told(change(made, original_flaws=True, examples="sop"))
    assert flaws["one_segment_share"] == 0.0 and flaws["label_balance"] == 1.0
    for name, found in (("one_segment_share", values), ("unknown_rate", values), ("data.original_flaws", flaws)):
        assert any(name in warning for warning in found["warnings"])
    assert any("data.holdout" in warning for warning in values["warnings"])


def test_examples_are_spelled_as_they_were(clean):
    made = change(clean, packing=4, seq_len=64, batch_size=2)
    rows, shown = rows_of(made, rows=50), told(made, rows=50, shown=20)["shown"]
    assert len(shown) == 20
    expected = [(number, k) for number, row in enumerate(rows) for k in range(row["segments"].max())]
    for (number, k), example in zip(expected, shown, strict=False):
        row = rows[number]
        original = row["tokens"].copy()
        real = row["mlm_weights"] > 0
        original[row["mlm_positions"][real]] = row["mlm_labels"][real]
        inside = np.flatnonzero(row["segments"] == k + 1)
        pieces = "".join(PIECES[token].removeprefix("##") for token in original[inside])
        marks = [(before, after) for before, after in example["parts"] if after is not None]
        changes = [(PIECES[original[i]], PIECES[row["tokens"][i]]) for i in inside if i in row["mlm_positions"][real]]
        assert "".join(before for before, _ in example["parts"]).replace(" ", "") == pieces
        assert marks == changes and all(f"{{{before}→{after}}}" in example["text"] for before, after in marks)
        labels = ("true next", "random next")
        label = labels[row["pair_labels"][k]] if row["pair_weights"][k] else "no label"
        assert (example["row"], example["label"]) == (number, label)


def test_parts_of_words_are_joined(tmp_path, clean):
    vocabulary = clean[2]
    ids = np.array([PIECES.index(piece) for piece in ("[CLS]", "w1", "##s", "w2", ".", "[SEP]", "##s", "[UNK]")])
    labels = np.full(len(ids), -1)
    labels[2], ids[2] = ids[2], PIECES.index("[MASK]")
    labels[4] = ids[4]
    parts = list(report._parts(ids, labels, vocabulary))
    text = "".join(before if after is None else f"{{{before}→{after}}}" for before, after in parts)
    assert text == "[CLS] w1{s→[MASK]} w2 {.→.} [SEP] ##s [UNK]"
    path = tmp_path / "spiece.model"
    tokenizer.train_sentencepiece(["ab abc abcd bcd " * 9] * 9, path, vocab_size=22, lower_case=True)
    pieces = tokenizer.load(path, lower_case=True)
    (ids, _) = pieces.encode_batch(["abc abcd x"])
    tokens = np.concatenate(([pieces.special.cls], ids, [pieces.special.sep]))
    spelled = "".join(before for before, _ in report._parts(tokens, np.full(len(tokens), -1), pieces))
    assert spelled.split() == ["[CLS]", "abc", "abcd", "<unk>", "[SEP]"]


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
    page = report.page(values | planted | {"sources": [*values["sources"], *planted["sources"]], "shown": shown})
    parsed = Parser(page)
    assert set(parsed.tags) <= TAGS and parsed.tags["img"] >= 3
    assert "<script>a.txt" in parsed.shown  # the name of a file
    addresses = [value for name, value in parsed.attributes if name in ("src", "href")]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "://" not in page and "\x1b" not in page
    assert parsed.shown.count(seen) >= 8 and parsed.tags["mark"] > 3 + 2
    text = report.text(values | planted)
    assert "\x1b" not in text and "\u202e" not in text


@pytest.mark.parametrize("examples", ["nsp", "full_sentences"])
def test_text_has_every_key_and_fits_a_terminal(clean, examples):
    values = told(change(clean, examples=examples))
    assert values.keys() >= CONTRACT
    text = report.text(values)
    table = text.split("\n\n")[1].splitlines()
    names = [line.split()[0] for line in table]
    assert set(names) >= CONTRACT
    assert len(table) < 30 and max(map(len, text.splitlines())) <= 120
    assert all(example["label"] in text for example in values["shown"])
    # As it is read back from a file, whatever the order of its keys.
    again = json.loads(json.dumps(values, allow_nan=False, sort_keys=True))
    assert report.text(again) == text
    assert examples == "nsp" or Parser(report.page(again)).tags["img"] >= 3


def test_text_shows_rare_lengths_and_cuts_long_examples(faults):
    long = {"row": 0, "label": "swapped", "text": "abcdef " * 200}
    histogram = {"edges": [0, 1, 2, 3], "counts": [0, 1, 99]}
    text = report.text(faults | {"shown": [long], "length_histogram": histogram})
    assert " ▁▂█ " in text and text.split()[-69:] == ["abcdef"] * 68 + ["…"]


def test_another_tokenizer_is_refused(clean, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES[:30]) + "\n")
    with pytest.raises(DataError, match=r"data\.tokenizer"):
        report.report(*clean[:2], tokenizer.load(tmp_path / "vocab.txt", lower_case=True))
