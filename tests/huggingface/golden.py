"""What transformers' torch code computes for the tiny models of `directories`, kept for where torch is not installed.

`python tests/huggingface/golden.py`, in an environment with the [hf] extra and PYTHONPATH=tests, writes it anew.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from directories import hf, ours, write
from small import random_batch, tiny

FILE = Path(__file__).with_suffix(".json")
KINDS = ("modernbert", "modernbert_global", "nomic")
PLACES = [[0, 0], [0, 13], [1, 2], [1, 15]]
"""Row and position."""


def batch_of():
    """Two rows, padded to 32 and longer than ModernBERT's window of 4."""
    return random_batch(tiny(data={"batch_size": 2}))


def computed(kind):
    """Hidden states, 32 numbers each, and logits of the first 20 words, at PLACES; by torch."""
    import torch

    batch, (config, _) = batch_of(), ours(kind)
    with tempfile.TemporaryDirectory() as folder:
        model = hf().AutoModelForMaskedLM.from_pretrained(write(Path(folder) / "model", kind)).eval()
    inputs = {"input_ids": batch["tokens"], "attention_mask": batch["segments"] > 0}
    if config.token_types:
        inputs["token_type_ids"] = batch["token_types"]
    tensors = {name: torch.tensor(np.asarray(x, np.int64)) for name, x in inputs.items()}
    with torch.no_grad():
        outputs = model(**tensors, output_hidden_states=False)
        hidden = model.base_model(**tensors).last_hidden_state.numpy()
    rows, positions = np.array(PLACES).T
    return {"hidden": hidden[rows, positions], "logits": outputs.logits.numpy()[rows, positions, :20]}


def read():
    """Kind -> name -> array."""
    kept = json.loads(FILE.read_text())
    return {kind: {name: np.array(x) for name, x in values.items()} for kind, values in kept.items()}


if __name__ == "__main__":
    found = {
        kind: {name: np.round(x.astype(float), 6).tolist() for name, x in computed(kind).items()} for kind in KINDS
    }
    lines = [f'"{kind}": {json.dumps(values)}' for kind, values in found.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
