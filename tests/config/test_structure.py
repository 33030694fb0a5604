"""`bertjax.config.structure`: what recipes share is a model that the rules allow, and the sizes that it says."""

import pytest

from bertjax.config.recipe import default, from_dict
from bertjax.config.structure import modern


@pytest.mark.parametrize(("layers", "width", "ffn"), [(4, 128, 352), (6, 192, 512), (6, 256, 704), (8, 384, 1024)])
def test_modern_has_heads_of_64_and_gates_of_8_thirds(layers, width, ffn):
    config = default()
    modern(config, num_layers=layers, hidden_size=width)
    model = from_dict(config).model
    assert (model.num_layers, model.hidden_size, model.embedding_size) == (layers, width, width)
    assert model.hidden_size // model.num_heads == 64 and model.ffn_size == ffn
    assert (model.positions, model.ffn, model.activation, model.biases) == ("rotary", "gated", "silu", "heads")
