"""`bertjax.bench.torch_peer`: the peer does the work that it is timed for, and nothing else is timed against it."""

import directories
import numpy as np
import pytest
from small import tiny

from bertjax import batch
from bertjax.bench import torch_peer
from bertjax.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"share": "all"}}, "BERT with both heads"),
        ({"model": {"token_types": 0}}, "BERT with both heads"),
        ({"model": {"heads": ("mlm_head",)}, "objective": {"pair": 0.0}}, "BERT with both heads"),
        ({"optim": {"name": "lamb"}}, "AdamW without accumulation"),
        ({"optim": {"accumulate": 2}}, "AdamW without accumulation"),
        ({"compute": {"dtype": "bfloat16"}}, "float32 AdamW"),
        ({"data": {"packing": 2}}, "or packing"),
    ],
)
def test_unequal_work_is_refused(changes, named):
    with pytest.raises(ConfigError, match=f"^--peer=torch: [^\n]*{named}"):
        torch_peer.check_step(tiny(**changes))


def test_without_torch_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_peer, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the extra, `pip install 'bertjax\[hf\]'`"):
        torch_peer.check_step(tiny())
    with pytest.raises(ConfigError, match="needs the extra"):
        torch_peer.encoder(tmp_path)


def test_another_directory_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(torch_peer, "find_spec", lambda name: True)
    with pytest.raises(ConfigError, match="is no Hugging Face directory; make one with `bertjax export`"):
        torch_peer.encoder(tmp_path)


def test_a_step_is_of_the_model_asked_for(monkeypatch):
    """As large, and it learns: the loss of the same rows falls."""
    transformers, config = directories.hf(), tiny(model={"dropout": 0.0, "attention_dropout": 0.0})
    made = []

    class Noted(transformers.BertForPreTraining):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            made.append((self.config, float(output.loss)))
            return output

    monkeypatch.setattr(transformers, "BertForPreTraining", Noted)
    m = config.model
    rows = batch.synthetic(config.data, vocab_size=m.vocab_size, token_types=m.token_types, seed=0)
    step = torch_peer.training_step(m, config.optim, rows)
    for _ in range(5):
        step()
    theirs, losses = made[0][0], [loss for _, loss in made]
    assert (theirs.hidden_size, theirs.num_hidden_layers, theirs.vocab_size) == (32, 4, 400)
    assert (theirs.hidden_act, theirs.intermediate_size, theirs.hidden_dropout_prob) == ("gelu_new", 64, 0.0)
    assert losses[0] == pytest.approx(np.log(400) + np.log(2), rel=0.2) and losses[-1] < losses[0]
