"""Structures that several recipes give a model of their own."""

from typing import Any


def modern(config: Any, *, num_layers: int, hidden_size: int) -> None:
    """Make the model of a recipe a nomic-bert of this size: rotary positions, SwiGLU, norms after each sum, no dropout.

    Heads are 64 wide, the feed-forward part is 8/3 of the width. It learns from less text than BERT's structure does
    (docs/speedrun.md).
    """
    config.model.update(
        num_layers=num_layers,
        hidden_size=hidden_size,
        embedding_size=hidden_size,
        num_heads=hidden_size // 64,
        ffn_size=-(-hidden_size * 8 // 3 // 32) * 32,
        positions="rotary",
        rotary_base=1_000.0,
        ffn="gated",
        activation="silu",
        biases="heads",
        dropout=0.0,
        attention_dropout=0.0,
    )
