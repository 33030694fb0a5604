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
LABELLED = (
    "bert_classify",
    "bert_choice",
    "bert_tag",
    "bert_span",
    "distilbert_classify",
    "modernbert_mean",
    "modernbert_tag",
)
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


def logits(kind):
    """Of a model with a head for labels, as `test_labels.logits`; by torch."""
    import torch

    batch, (config, _) = batch_of(), ours(kind)
    with tempfile.TemporaryDirectory() as folder:
        directory = write(Path(folder) / "model", kind)
        (name,) = json.loads((directory / "config.json").read_text())["architectures"]
        model = getattr(hf(), name).from_pretrained(directory).eval()
    inputs = {"input_ids": batch["tokens"], "attention_mask": batch["segments"] > 0}
    if config.token_types:
        inputs["token_type_ids"] = batch["token_types"]
    tensors = {name: torch.tensor(np.asarray(x, np.int64)) for name, x in inputs.items()}
    if kind.endswith("choice"):  # one question, whose endings are the rows
        tensors = {name: x[None] for name, x in tensors.items()}
    with torch.no_grad():
        outputs = model(**tensors)
    if kind.endswith("span"):
        found = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1).numpy()
    else:
        found = outputs.logits.numpy()
    rows, positions = np.array(PLACES).T
    return {"logits": found[rows, positions] if found.ndim == 3 else found}


def read():
    """Kind -> name -> array."""
    kept = json.loads(FILE.read_text())
    return {kind: {name: np.array(x) for name, x in values.items()} for kind, values in kept.items()}


if __name__ == "__main__":
    found = {
        kind: {name: np.round(x.astype(float), 6).tolist() for name, x in values.items()}
        for kind, values in ({k: computed(k) for k in KINDS} | {k: logits(k) for k in LABELLED}).items()
    }
    lines = [f'"{kind}": {json.dumps(values)}' for kind, values in found.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
