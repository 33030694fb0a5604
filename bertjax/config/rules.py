"""What the values of a config must satisfy, alone and with each other; every violation is a line with its fix."""

import dataclasses
import math
import os
from typing import Any

import numpy as np

from bertjax.config.limits import WHOLE, Limits, limits
from bertjax.config.phases import phases
from bertjax.config.phases import relations as phase_relations


def errors(config: Any) -> list[str]:
    """The violations of a `Config` whose fields are of the right types; those of relations only if each value by
    itself is allowed.
    """
    found = limit_errors(config) or [message for holds, message in phase_relations(config) if not holds]
    return found or _errors_by_phase(config)


def limit_errors(config: Any) -> list[str]:
    """The violations of each value by itself."""
    found = []
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        for name, limit in limits(values).items():
            value = getattr(values, name)
            problems = [_broken(limit, one) for one in (value if isinstance(value, tuple) else (value,))]
            found += [f"{section.name}.{name} = {value!r}: {problem}" for problem in problems if problem][:1]
    return found


def _broken(limit: Limits, value: Any) -> str:
    """What is wrong with one value; "" if nothing."""
    if limit.choices:
        return "" if value in limit.choices else f"must be one of {', '.join(limit.choices)}"
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            # All arithmetic is in float32, where 1e300 is infinite.
            if not np.isfinite(np.float32(value)):
                return "must be a finite number that float32 holds"
    if limit.below is not None and limit.least is not None and not limit.least <= value < limit.below:
        return f"must be at least {limit.least} and below {limit.below}"
    if limit.least is not None and not value >= limit.least:
        return f"must be at least {limit.least}"
    if isinstance(value, int) and limit.below is None and value >= WHOLE:
        return f"must be below {WHOLE}"
    return _broken_text(limit, value) if isinstance(value, str) else ""


def _broken_text(limit: Limits, text: str) -> str:
    if "\0" in text:
        return "must not hold the character NUL"
    if limit.path and text.startswith("~") and os.path.expanduser(text) == text:
        return f"there is no user {text[1:].partition('/')[0]}, whose home this names"
    return ""


def _errors_by_phase(config: Any) -> list[str]:
    """Of a run that is one phase, its own; of another, those of each phase, once where all have them."""
    by_phase = [(phase.prefix, _relation_errors(phase.config, phase.rate.steps)) for phase in phases(config)]
    shared = [message for message in by_phase[0][1] if all(message in found for _, found in by_phase)]
    return shared + [f"{prefix}{message}" for prefix, found in by_phase for message in found if message not in shared]


def _relation_errors(config: Any, steps: int) -> list[str]:
    """`steps` is the length of its schedule of the learning rate."""
    m, d, o, r = config.model, config.data, config.optim, config.run
    rules = [
        (
            m.token_types != 1 or not d.pairs or config.task.kind != "",
            "model.token_types = 1: two segments need two; set it to 2, or to 0 for no token types",
        ),
        (
            config.objective.pair == 0.0 or ("pair_head" in m.heads and d.pairs) or config.task.kind != "",
            f"objective.pair = {config.objective.pair}: needs pair_head in model.heads and data.examples = nsp or sop;"
            " set it to 0.0 to train without a pair loss",
        ),
        (
            "mlm_head" in m.heads or config.task.kind != "",
            f"model.heads = {m.heads}: masked words are what is evaluated; add mlm_head",
        ),
        (
            any(value for name, value in vars(config.objective).items() if name != "z"),
            "objective: every coefficient but z is 0.0; set objective.mlm to 1.0",
        ),
        (
            d.seq_len <= m.max_positions,
            f"data.seq_len = {d.seq_len}: must be at most model.max_positions = {m.max_positions}",
        ),
        (
            d.max_predictions <= d.seq_len or config.task.kind != "",
            f"data.max_predictions = {d.max_predictions}: must be at most data.seq_len = {d.seq_len}",
        ),
        (
            d.batch_size % o.accumulate == 0,
            f"optim.accumulate = {o.accumulate}: must divide data.batch_size = {d.batch_size}",
        ),
        (any(map(str.strip, d.source)), f"data.source = {d.source}: name a file, a pattern or builtin"),
    ]
    rules += (
        _model_relations(m)
        + _position_relations(m)
        + _data_relations(d)
        + _optim_relations(o, steps, f"run.steps = {steps}" if steps == r.steps else f"its {steps} steps")
        + _run_relations(r)
    )
    rules += _teacher_relations(config.objective, config.teacher) + _task_relations(config)
    return [message for holds, message in rules if not holds]


def _model_relations(m: Any) -> list[tuple[bool, str]]:
    grouped = m.num_layers - m.apart
    return [
        (
            m.hidden_size % m.num_heads == 0,
            f"model.num_heads = {m.num_heads}: must divide model.hidden_size = {m.hidden_size}",
        ),
        (
            m.share != "none" or m.num_groups == 1,
            f"model.num_groups = {m.num_groups}: needs model.share = attention, ffn or all; set it to 1",
        ),
        (
            m.embedding_size <= m.hidden_size,
            f"model.embedding_size = {m.embedding_size}: must be at most model.hidden_size = {m.hidden_size}",
        ),
        *(
            (head not in m.heads or "pooler" in m.heads, f"model.heads = {m.heads}: {head} needs pooler; add it")
            for head in ("pair_head", "classifier")
        ),
        (len(set(m.heads)) == len(m.heads), f"model.heads = {m.heads}: names a head twice"),
        (
            m.first_norm or m.norm_place == "pre",
            "model.first_norm = False: needs model.norm_place = pre; set it to True",
        ),
        (
            m.first_norm or m.num_layers > 1,
            "model.first_norm = False: needs two layers or more; set model.num_layers",
        ),
        (
            m.copies == 0 or grouped % m.copies == 0,
            f"model.num_groups = {m.num_groups}: must divide model.num_layers = {m.num_layers}"
            + (f" less the first layer, {grouped}" if m.apart else ""),
        ),
        (
            m.mlm_transform or m.embedding_size == m.hidden_size,
            "model.mlm_transform = False: nothing takes the hidden states to model.embedding_size ="
            f" {m.embedding_size}; set it to model.hidden_size = {m.hidden_size}",
        ),
    ]


def _position_relations(m: Any) -> list[tuple[bool, str]]:
    return [
        (
            m.positions != "rotary" or m.hidden_size // m.num_heads % 2 == 0,
            f"model.positions = rotary: turns pairs of numbers, and heads of {m.hidden_size // m.num_heads} are odd;"
            " change model.num_heads or model.hidden_size",
        ),
        (
            m.window == 0 or m.global_every > 1,
            f"model.window = {m.window}: with model.global_every = 1 no layer is local; set that to 2 or more",
        ),
        (
            m.rotary_base_local == 0.0 or m.rotary_base_local >= 1.0,
            f"model.rotary_base_local = {m.rotary_base_local}: must be 0.0, or at least 1",
        ),
        (
            m.rotary_base_local == 0.0 or (m.positions == "rotary" and m.window > 0),
            f"model.rotary_base_local = {m.rotary_base_local}: needs model.positions = rotary and model.window above 0",
        ),
        (
            m.initializer != "beside" or (m.positions == "learned" and m.embedding_size <= m.hidden_size),
            "model.initializer = beside: needs model.positions = learned, and model.embedding_size at most hidden_size",
        ),
        (
            m.initializer != "beside" or (m.embedding_size % 2 == 0 and m.initializer_range > 0.0),
            "model.initializer = beside: needs an even model.embedding_size and model.initializer_range above 0.0",
        ),
    ]


def _data_relations(d: Any) -> list[tuple[bool, str]]:
    most = round(d.seq_len * max(d.mask_rate, d.final_mask_rate))
    return _sequence_relations(d) + [
        (all(share > 0.0 for share in d.mix), f"data.mix = {d.mix}: must be positive numbers, one for each source"),
        (
            not d.mix or d.prepared != "" or len(d.mix) == len(d.source),
            f"data.mix = {d.mix}: data.source has {len(d.source)} entries; name a share for each",
        ),
        (
            d.row_lengths == tuple(sorted(set(d.row_lengths))) and d.row_lengths[-1] == d.seq_len,
            f"data.buckets = {d.buckets}: must be ascending lengths that end with data.seq_len = {d.seq_len}",
        ),
        (not d.buckets or d.packing == 1, f"data.packing = {d.packing}: rows in buckets hold one example; set it to 1"),
        (not d.buckets or not d.mix, f"data.mix = {d.mix}: does not go with data.buckets; empty one of them"),
        (
            d.packing <= d.seq_len // 5,
            f"data.packing = {d.packing}: at most data.seq_len / 5 = {d.seq_len // 5} examples fit into a row",
        ),
        (d.pairs or not d.original_flaws, "data.original_flaws = True: needs data.examples = nsp or sop"),
        (
            d.masking == "token" or d.mask_smoothing == 0.0,
            f"data.mask_smoothing = {d.mask_smoothing}: needs data.masking = token; set it to 0.0",
        ),
        (
            d.masking != "token" or not d.mask_together,
            "data.mask_together = True: needs data.masking = whole_word or ngram",
        ),
        (
            len(d.mask_shares) == 3 and abs(sum(d.mask_shares) - 1.0) < 1e-6,
            f"data.mask_shares = {d.mask_shares}: must be three shares that add up to 1, as 0.8,0.1,0.1",
        ),
        (
            d.final_mask_rate == 0.0 or d.mask_count == 0,
            f"data.final_mask_rate = {d.final_mask_rate}: data.mask_count = {d.mask_count} is in place of rates; set"
            " one of them to 0",
        ),
        (
            d.final_mask_rate == 0.0 or most <= d.max_predictions,
            f"data.max_predictions = {d.max_predictions}: too few for the highest of data.mask_rate = {d.mask_rate} and"
            f" data.final_mask_rate = {d.final_mask_rate}; set it to {most}",
        ),
        (
            d.mask_count <= d.max_predictions,
            f"data.mask_count = {d.mask_count}: must be at most data.max_predictions = {d.max_predictions}",
        ),
    ]


def _optim_relations(o: Any, steps: int, told: str) -> list[tuple[bool, str]]:
    of_power = "belongs to optim.schedule = power; leave it"
    return [
        (o.warmup_steps <= steps, f"optim.warmup_steps = {o.warmup_steps}: must be at most {told}"),
        (o.schedule == "power" or o.power == 1.0, f"optim.power = {o.power}: {of_power} at 1.0"),
        (o.schedule == "power" or not o.shift_decay, f"optim.shift_decay = True: {of_power} at False"),
        (
            o.schedule in ("wsd_linear", "wsd_sqrt") or o.decay_steps == 0,
            f"optim.decay_steps = {o.decay_steps}: needs optim.schedule = wsd_linear or wsd_sqrt; set it to 0",
        ),
        (
            o.decay_steps <= max(steps - o.warmup_steps, 0),
            f"optim.decay_steps = {o.decay_steps}: {told} leave {steps - o.warmup_steps} after warm-up",
        ),
        (
            o.name != "stableadamw" or o.bias_correction,
            "optim.bias_correction = False: stableadamw measures gradients by moments without bias; set it to True",
        ),
        (
            o.decay_by_lr or (o.name != "lamb" and o.lr > 0.0),
            "optim.decay_by_lr = False: needs another optim.name than lamb, and optim.lr above 0.0",
        ),
    ]


def _sequence_relations(d: Any) -> list[tuple[bool, str]]:
    """Of text that is no prose."""
    words = d.alphabet == "words"
    return [
        (
            words or d.case != "uncased",
            f"data.case = uncased: data.alphabet = {d.alphabet} has a case of its own (c and C); set it to cased",
        ),
        (
            words or d.format in ("lines", "fasta", "jsonl", "parquet"),
            f"data.format = {d.format}: data.alphabet = {d.alphabet} has no sentences or paragraphs; set it to lines (a"
            " sequence each), fasta, jsonl or parquet",
        ),
        (
            not d.pairs or (words and d.format not in ("lines", "fasta", "ids")),
            f"data.examples = {d.examples}: needs documents of several sentences, and here one is a single sequence;"
            " set it to doc_sentences and objective.pair to 0.0",
        ),
        (
            d.alphabet == "dna" or d.kmer == 6,
            f"data.kmer = {d.kmer}: needs data.alphabet = dna; leave it",
        ),
        (
            d.tokenizer_kind == "sentencepiece" or not d.by_rule,
            f"data.tokenizer_kind = {d.tokenizer_kind}: pieces of data.alphabet = {d.alphabet} and data.format ="
            f" {d.format} are listed, not trained; leave it",
        ),
    ]


def _run_relations(r: Any) -> list[tuple[bool, str]]:
    both = math.lcm(r.save_every, r.eval_every)  # 0 if one of them is
    return [
        (
            r.keep_best == "" or 0 < both < r.steps,
            f"run.keep_best = {r.keep_best!r}: only the last checkpoint would be evaluated, as no multiple of"
            f" run.save_every = {r.save_every} and run.eval_every = {r.eval_every} is below run.steps = {r.steps}; let"
            " run.eval_every be a multiple of run.save_every",
        ),
        (
            r.init_from != "" or r.init_layers == (),
            f"run.init_layers = {r.init_layers}: needs run.init_from; name the model there",
        ),
    ]


def _teacher_relations(objective: Any, teacher: Any) -> list[tuple[bool, str]]:
    hidden = objective.cosine > 0.0 or objective.hidden_mse > 0.0
    compared = {name: getattr(objective, name) for name in ("soft", "cosine", "logit_mse", "hidden_mse")}
    return [
        *(
            (
                teacher.path != "" or value == 0.0,
                f"objective.{name} = {value}: needs a teacher; set teacher.path",
            )
            for name, value in compared.items()
        ),
        (
            teacher.path == "" or any(compared.values()),
            f"teacher.path = {teacher.path!r}: nothing is learnt from it; set objective.soft or another such term",
        ),
        (
            hidden or (teacher.layers == () and teacher.projection == 0),
            "teacher.layers, teacher.projection: need objective.cosine or objective.hidden_mse; leave them",
        ),
    ]


def _task_relations(config: Any) -> list[tuple[bool, str]]:
    t, d, kind = config.task, config.data, config.task.kind
    swept = ", ".join(f"sweep.{name}" for name, values in vars(config.sweep).items() if values)
    return [
        (
            kind == "" or not config.run.keep_best,
            f"run.keep_best = {config.run.keep_best!r}: is for pretraining; set it to '', since task.select = best"
            " keeps the best weights in each checkpoint",
        ),
        (kind != "" or not t.train, f"task.train = {t.train}: needs task.kind; name a recipe of configs/finetune"),
        (kind != "" or not swept, f"{swept}: is for fine-tuning; set it to ()"),
        (bool(t.dev) or kind == "" or t.dev_share > 0.0, "task.dev_share = 0.0: nothing to measure on; name task.dev"),
        (kind != "choice" or len(t.endings) > 1, f"task.endings = {t.endings}: name the columns of two or more"),
        (
            kind != "choice" or d.packing == len(t.endings),
            f"data.packing = {d.packing}: a row holds all endings; set it to {len(t.endings)}",
        ),
        (kind == "choice" or not t.endings, f"task.endings = {t.endings}: needs task.kind = choice"),
        (not t.pair or kind in ("classify", "regress"), f"task.pair = {t.pair!r}: {kind} has no pairs; set it to ''"),
        (kind != "regress" or not t.labels, f"task.labels = {t.labels}: a number has none; set it to ()"),
        (len(set(t.labels)) == len(t.labels), f"task.labels = {t.labels}: names a label twice"),
        (
            kind != "span" or t.max_question + 8 <= d.seq_len,
            f"task.max_question = {t.max_question}: leaves no room for the text in data.seq_len = {d.seq_len}",
        ),
        (kind == "" or not d.mix, f"data.mix = {d.mix}: is for pretraining; set it to ()"),
    ]
