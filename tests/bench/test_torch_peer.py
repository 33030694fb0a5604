"""`bertjax.bench.torch_peer`: the peer does the work that it is timed for, and nothing else is timed against it."""

import directories
import numpy as np
import pytest
from small import tiny

from bertjax import batch
from bertjax.bench import torch_peer
from bertjax.bench.turns import Count
from bertjax.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"share": "all"}}, "BERT with both heads"),
        ({"model": {"token_types": 0}}, "BERT with both heads"),
        ({"model": {"heads": ("mlm_head",)}, "objective": {"pair": 0.0}}, "BERT with both heads"),
        ({"optim": {"name": "lamb"}}, "by AdamW without accumulation"),
        ({"optim": {"accumulate": 2}}, "by AdamW without accumulation"),
        ({"task": {"kind": "classify", "train": ("x",)}}, "compares pretraining"),
        ({"teacher": {"path": "x"}, "objective": {"soft": 1.0}}, "or a teacher"),
    ],
)
def test_unequal_work_is_refused(changes, named):
    with pytest.raises(ConfigError, match=f"^--vs=hf: [^\n]*{named}"):
        torch_peer.check_step(tiny(**changes), "hf")


def test_without_torch_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_peer, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the extra, `pip install 'bertjax\[hf\]'`"):
        torch_peer.check_step(tiny(), "hf")
    with pytest.raises(ConfigError, match="needs the extra"):
        torch_peer.encoder(tmp_path)


def test_another_directory_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_peer, "find_spec", lambda name: True)
    with pytest.raises(ConfigError, match="is no Hugging Face directory; make one with `bertjax export`"):
        torch_peer.encoder(tmp_path)


def test_a_step_is_of_the_model_asked_for(monkeypatch):
    """As large, and it learns: the loss of the same rows falls."""
    transformers, config = directories.hf(), tiny(model={"dropout": 0.0, "attention_dropout": 0.0})
    made, forward = [], transformers.BertForPreTraining.forward

    def noted(self, **inputs):
        output = forward(self, **inputs)
        made.append((self.config, output.loss.item()))
        return output

    monkeypatch.setattr(transformers.BertForPreTraining, "forward", noted)
    work = torch_peer.work(config, None, "hf:eager")
    assert {work.step() for _ in range(5)} == {Count(8 * 32, 8 * 32)}
    assert work.begun()["compile_seconds"]["cold"] > 0
    theirs, losses = made[0][0], [loss for _, loss in made]
    assert (theirs.hidden_size, theirs.num_hidden_layers, theirs.vocab_size) == (32, 4, 400)
    assert (theirs.hidden_act, theirs.intermediate_size, theirs.hidden_dropout_prob) == ("gelu_new", 64, 0.0)
    assert losses[0] == pytest.approx(np.log(400) + np.log(2), rel=0.2) and losses[-1] < losses[0]


def test_packed_rows_become_a_row_for_each_example():
    """Every token, its type, its masked words and the label of its pair, as they were, each beside its example."""
    config = tiny(data={"packing": 4, "batch_size": 4})
    rows = batch.synthetic(config)
    rows["segments"][0, 20:] = 0  # padding, and with it an example less
    rows["mlm_weights"][1, 2:] = 0.0
    rows["pair_weights"][2, 1] = 0.0
    made = torch_peer.one_a_row(rows)
    lengths, count = made["attention_mask"].sum(1), 15
    assert made["input_ids"].shape == (count, 8) and sorted(lengths)[:2] == [4, 8]
    row = 0
    for b in range(4):
        for k in range(4):
            places = np.flatnonzero(rows["segments"][b] == k + 1)
            if not len(places):
                continue
            assert (made["input_ids"][row, : len(places)] == rows["tokens"][b, places]).all()
            assert (made["token_type_ids"][row, : len(places)] == rows["token_types"][b, places]).all()
            slots = (rows[f"mlm_{name}"][b] for name in ("positions", "labels", "weights"))
            masked = {place: label for place, label, weight in zip(*slots, strict=True) if weight}
            found = {places[i]: y for i, y in enumerate(made["labels"][row]) if y != -100}
            assert found == {place: label for place, label in masked.items() if place in places}
            pair = made["next_sentence_label"][row]
            assert pair == (rows["pair_labels"][b, k] if rows["pair_weights"][b, k] else -100)
            row += 1
    assert row == count
