"""The report counts what is there, measures what the rows hold, and warns of what was planted."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from reported import PIECES, ROWS, SPECIAL, change, make, prose, rows_of, told

from bertjax.config.schema import RunConfig
from bertjax.data import order
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import DataError
from bertjax.report.prepared import report


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
    (planned,) = order.sources(data, train, 0)
    assert values["packing_density"] == pytest.approx(order.packing_density(data, train, seed=0))
    assert values["epoch"]["rows"] == order.epoch_rows(data, train, seed=0)
    (held_out,) = order.sources(data, made[1].validation, 0)
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
    made = change(clean, buckets=(16, 32, 64), seq_len=64, batch_size=30)
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
    made = make(tmp_path, sources, mix=(1.0, 3.0), holdout=0.3)
    made = (replace(made[0], run=RunConfig(steps=1000)), *made[1:])
    values = told(made, rows=100)
    (held_out,) = order.sources(change(made, mix=())[0].data, made[1].validation, 0)
    assert values["validation"]["examples"] == len(held_out.plan)
    small = values["sources"][1]["epochs"]
    rows = order.sources(made[0].data, made[1].train, 0)[1].rows_per_epoch
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


def test_another_tokenizer_is_refused(clean, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES[:30]) + "\n")
    with pytest.raises(DataError, match=r"data\.tokenizer"):
        report(*clean[:2], load_tokenizer(tmp_path / "vocab.txt", lower_case=True))
