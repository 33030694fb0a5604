"""The torch models of Hugging Face's transformers that bertjax is timed against, run as their users run them.

They need the [hf] extra, and nothing else in the package needs torch: it is imported inside the functions.

Shape letters: B rows, L positions of a row, P prediction slots of a row.
"""

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from bertjax import batch
from bertjax.bench import own_step
from bertjax.bench.turns import Count, Rows, Work
from bertjax.config.schema import Config
from bertjax.errors import ConfigError
from bertjax.huggingface import config_json

ROWS = 32
"""Texts that are encoded at a time, in their order."""
NAMES = ("hf", "hf:eager", "hf:sdpa", "hf:compile")
"""What a step is timed against: BERT with one of the library's two kinds of attention, or the second compiled by
`torch.compile`; hf = all of them, compiled only on a GPU."""


def require() -> None:
    """Raise ConfigError where torch or transformers is not installed."""
    if not (find_spec("torch") and find_spec("transformers")):
        raise ConfigError("--vs=hf: needs the extra, `pip install 'bertjax[hf]'`")


def check_step(config: Config, name: str) -> tuple[str, ...]:
    """Which of `NAMES` this one stands for. Raises ConfigError if `work` would not do the work of this config."""
    m, o = config.model, config.optim
    if m.share != "none" or m.embedding_size != m.hidden_size or not m.token_types or "pair_head" not in m.heads:
        raise ConfigError(f"--vs={name}: compares BERT with both heads; name a recipe of configs/bert.py")
    if o.name != "adamw" or o.accumulate != 1 or config.teacher.path or config.task.kind:
        work = "pretraining by AdamW without accumulation or a teacher"
        raise ConfigError(f"--vs={name}: compares {work}; leave those at their defaults")
    require()
    import torch

    return NAMES[1:] if name == "hf" and torch.cuda.is_available() else NAMES[1:3] if name == "hf" else (name,)


def work(config: Config, rows: Rows | None, name: str) -> Work:
    """A training step of `BertForPreTraining` on the examples of `rows`, with torch's AdamW and gradient clipping, on a
    GPU if torch has one; bfloat16 is torch's autocast. `name` is one of `NAMES` but for the first.

    Tells versions and compile_seconds, the seconds of the first step; in the end peak_bytes.
    """
    import torch
    from transformers import BertConfig, BertForPreTraining

    gpu = torch.cuda.is_available()
    device, optim = torch.device("cuda" if gpu else "cpu"), config.optim
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA takes
    known = BertConfig.from_dict(config_json.to_json("bert", config.model, 0))
    known._attn_implementation = "eager" if name == "hf:eager" else "sdpa"
    network: Any = BertForPreTraining(known).train().to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=optim.lr, betas=(optim.b1, optim.b2), weight_decay=optim.weight_decay, fused=gpu
    )
    call = torch.compile(network) if name == "hf:compile" else network
    batches = cycle([_tensors(one_a_row(one), device) for one in rows or [batch.synthetic(config)]])
    took: list[float] = []

    def step() -> Count:
        start = time.perf_counter()
        count, inputs = next(batches)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.compute.dtype == "bfloat16"):
            loss = call(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # when it is done
        took.append(time.perf_counter() - start)
        return count

    def begun() -> dict[str, Any]:
        return {
            "versions": own_step.versions(("torch", "transformers")),
            "compile_seconds": {"cold": took[0], "cached": None},
        }

    def ended() -> dict[str, Any]:
        return {"peak_bytes": torch.cuda.max_memory_allocated() if gpu else own_step.peak_of_process()}

    return Work(step, begun, ended)


def one_a_row(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows that hold several examples (`bertjax.batch`), as the peer takes them: an example a row, padded to the
    longest. `labels` are of the masked words, -100 elsewhere.
    """
    segments_BL = rows["segments"]
    words_BL = np.full_like(rows["tokens"], -100)
    used_BP = rows["mlm_weights"] > 0
    words_BL[np.nonzero(used_BP)[0], rows["mlm_positions"][used_BP]] = rows["mlm_labels"][used_BP]
    found = [(b, k) for b, k in np.ndindex(rows["pair_labels"].shape) if (segments_BL[b] == k + 1).any()]
    places = [np.flatnonzero(segments_BL[b] == k + 1) for b, k in found]
    shape = len(found), max(map(len, places))
    wholes = {
        "input_ids": (rows["tokens"], 0),
        "token_type_ids": (rows["token_types"], 0),
        "attention_mask": (np.ones_like(segments_BL), 0),
        "labels": (words_BL, -100),
    }
    made = {name: np.full(shape, padding, np.int64) for name, (_, padding) in wholes.items()}
    for name, (whole_BL, _) in wholes.items():
        for row, ((b, _), place) in enumerate(zip(found, places, strict=True)):
            made[name][row, : len(place)] = whole_BL[b, place]
    pair_labels = [rows["pair_labels"][b, k] if rows["pair_weights"][b, k] else -100 for b, k in found]
    return made | {"next_sentence_label": np.array(pair_labels, np.int64)}


def _tensors(made: dict[str, np.ndarray], device: Any) -> tuple[Count, dict[str, Any]]:
    """A batch on the device, without a mask where nothing is padding, so that the fastest attention may be taken."""
    import torch

    count = Count.of(made["attention_mask"])
    given = {name: x for name, x in made.items() if name != "attention_mask" or count.tokens < count.slots}
    return count, {name: torch.from_numpy(x).to(device) for name, x in given.items()}


def encoder(path: Path) -> tuple[Callable[[list[str]], None], Callable[[np.ndarray], None]]:
    """The model of a Hugging Face directory, as two functions: of texts, padded to the longest of each 32 and averaged
    to an embedding each; and of full rows of tokens [B, L], to hidden states. Raises ConfigError for another directory.
    """
    require()
    if not (path / "model.safetensors").is_file():
        raise ConfigError(f"--vs=hf: {path} is no Hugging Face directory; make one with `bertjax export`")
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
