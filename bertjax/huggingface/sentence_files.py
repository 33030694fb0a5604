"""The files by which sentence-transformers and text-embeddings-inference take a model directory for a sentence encoder.

They say what `Loaded.encode_text` does too: the mean of the last hidden states of all tokens.
"""

import json
from typing import Any

from bertjax.config.schema import ModelConfig

_POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")


def sentence_files(config: ModelConfig) -> dict[str, bytes]:
    """Contents by path in the directory. text-embeddings-inference wants each kind of pooling named, true or false."""
    module = "sentence_transformers.models."
    pooling = {f"pooling_mode_{name}": name == "mean_tokens" for name in _POOLINGS}
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{module}Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{module}Pooling"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": config.hidden_size} | pooling,
        # The tokenizer lower-cases by itself.
        "sentence_bert_config.json": {"max_seq_length": config.max_positions, "do_lower_case": False},
    }
    return {path: (json.dumps(values, indent=2, allow_nan=False) + "\n").encode() for path, values in files.items()}
