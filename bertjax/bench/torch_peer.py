"""The torch models of Hugging Face's transformers that bertjax is timed against, run as their users run them.

They need the [hf] extra, and nothing else in the package needs torch: it is imported inside the functions.

Shape letters: B rows, L positions of a row.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.config.schema import Config, ModelConfig, OptimConfig
from bertjax.errors import ConfigError
from bertjax.huggingface import config_json

ROWS = 32
"""Texts that are encoded at a time, in their order."""


def require() -> None:
    """Raise ConfigError where torch or transformers is not installed."""
    if not (find_spec("torch") and find_spec("transformers")):
        raise ConfigError("--peer=torch: needs the extra, `pip install 'bertjax[hf]'`")


def check_step(config: Config) -> None:
    """Raise ConfigError if `training_step` would not do the work of this config's step."""
    m, o = config.model, config.optim
    if m.share != "none" or m.embedding_size != m.hidden_size or not m.token_types or "pair_head" not in m.heads:
        raise ConfigError("--peer=torch: compares BERT with both heads; name a recipe of configs/bert.py")
    if o.name != "adamw" or o.accumulate != 1 or config.compute.dtype != "float32" or config.data.packing != 1:
        fix = "leave those at their defaults"
        raise ConfigError(f"--peer=torch: compares float32 AdamW without accumulation or packing; {fix}")
    require()


def training_step(model: ModelConfig, optim: OptimConfig, rows: dict[str, np.ndarray]) -> Callable[[], None]:
    """A step of `BertForPreTraining` on rows (`bertjax.batch`), with torch's AdamW and gradient clipping."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    network = BertForPreTraining(BertConfig.from_dict(config_json.to_json("bert", model, 0))).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)
    labels_BL = np.full_like(rows["tokens"], -100)
    np.put_along_axis(labels_BL, rows["mlm_positions"], rows["mlm_labels"], axis=1)
    inputs = {
        "input_ids": rows["tokens"],
        "token_type_ids": rows["token_types"],
        "attention_mask": rows["segments"],
        "labels": labels_BL,
        "next_sentence_label": rows["pair_labels"][:, 0],
    }
    tensors = {name: torch.from_numpy(array).long() for name, array in inputs.items()}

    def step() -> None:
        loss = network(**tensors).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def encoder(path: Path) -> tuple[Callable[[list[str]], None], Callable[[np.ndarray], None]]:
    """The model of a Hugging Face directory, as two functions: of texts, padded to the longest of each 32 and averaged
    to an embedding each; and of full rows of tokens [B, L], to hidden states. Raises ConfigError for another directory.
    """
    require()
    if not (path / "model.safetensors").is_file():
        raise ConfigError(f"--peer=torch: {path} is no Hugging Face directory; make one with `bertjax export`")
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA takes
    model: Any = AutoModel.from_pretrained(path).train(False)
    tokenizer = AutoTokenizer.from_pretrained(path)

    @torch.inference_mode()
    def encode(texts: list[str]) -> None:
        for start in range(0, len(texts), ROWS):
            batch = tokenizer(texts[start : start + ROWS], padding=True, truncation=True, return_tensors="pt")
            mask_BL1 = batch["attention_mask"][:, :, None]
            (model(**batch).last_hidden_state * mask_BL1).sum(1) / mask_BL1.sum(1)

    @torch.inference_mode()
    def hidden(tokens_BL: np.ndarray) -> None:
        rows_BL = torch.from_numpy(tokens_BL)
        model(input_ids=rows_BL, attention_mask=torch.ones_like(rows_BL))

    return encode, hidden
