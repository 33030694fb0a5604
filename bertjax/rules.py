"""What the values of a config must satisfy, alone and with each other; every violation is a line with its fix."""

import math
from typing import Any

CHOICES = {
    "model.share": ("none", "attention", "ffn", "all"),
    "model.activation": ("gelu_tanh", "gelu_erf", "relu"),
    "model.attention": ("auto", "reference", "xla", "cudnn", "splash"),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "dots", "full"),
    "teacher.dtype": ("float32", "bfloat16"),
    "teacher.tokens": ("masked", "real"),
    "data.format": ("auto", "file", "paragraphs", "sentences", "wikiextractor", "jsonl", "parquet"),
    "data.examples": ("nsp", "sop", "full_sentences", "doc_sentences"),
    "data.masking": ("token", "whole_word", "ngram"),
    "optim.name": ("adamw", "lamb"),
}
"""The allowed values of the fields that are names."""

MINIMUM = {
    "model.vocab_size": 6,
    "model.num_layers": 1,
    "model.hidden_size": 1,
    "model.num_heads": 1,
    "model.ffn_size": 1,
    "model.embedding_size": 1,
    "model.max_positions": 5,
    "model.token_types": 0,
    "model.num_groups": 1,
    "model.initializer_range": 0.0,
    "model.layer_norm_eps": 0.0,
    "objective.mlm": 0.0,
    "objective.pair": 0.0,
    "objective.soft": 0.0,
    "objective.cosine": 0.0,
    "objective.logit_mse": 0.0,
    "objective.hidden_mse": 0.0,
    "teacher.temperature": 1e-3,
    "teacher.projection": 0,
    "data.prepare_workers": 0,
    "data.batch_size": 1,
    "data.seq_len": 5,
    "data.packing": 1,
    "data.max_ngram": 1,
    "data.mask_count": 0,
    "data.mask_smoothing": 0.0,
    "data.max_predictions": 1,
    "data.loader_threads": 1,
    "data.loader_workers": 0,
    "optim.lr": 0.0,
    "optim.warmup_steps": 0,
    "optim.power": 0.0,
    "optim.eps": 0.0,
    "optim.weight_decay": 0.0,
    "optim.clip_norm": 0.0,
    "optim.accumulate": 1,
    "mesh.data": 0,
    "mesh.fsdp": 1,
    "mesh.tensor": 1,
    "run.steps": 1,
    "run.seed": 0,
    "run.log_every": 1,
    "run.eval_every": 0,
    "run.eval_rows": 1,
    "run.save_every": 0,
    "run.keep": 1,
    "run.peak_tflops": 0.0,
}
"""The smallest allowed value of a number."""

FRACTIONS = (
    "model.dropout",
    "model.attention_dropout",
    "data.holdout",
    "data.short_seq_prob",
    "data.mask_rate",
    "optim.b1",
    "optim.b2",
)
"""Numbers in [0, 1)."""


def errors(config: Any) -> list[str]:
    """The violations of a `bertjax.config.Config` whose fields are of the right types; those of relations only if each
    value by itself is allowed.
    """
    return _range_errors(config) or _list_errors(config.data) or _relation_errors(config)


def _range_errors(config: Any) -> list[str]:
    def value(path: str) -> Any:
        section, name = path.split(".")
        return getattr(getattr(config, section), name)

    errors = [
        f"{path} = {value(path)!r}: must be one of {', '.join(allowed)}"
        for path, allowed in CHOICES.items()
        if value(path) not in allowed
    ]
    # `not >=` rather than `<`, so that NaN is refused too.
    errors += [
        f"{path} = {value(path)!r}: must be a finite number, at least {least}"
        for path, least in MINIMUM.items()
        if not (value(path) >= least and math.isfinite(value(path)))
    ]
    errors += [
        f"{path} = {value(path)!r}: must be at least 0 and below 1"
        for path in FRACTIONS
        if not 0.0 <= value(path) < 1.0
    ]
    return errors


def _relation_errors(config: Any) -> list[str]:
    m, d, o, r = config.model, config.data, config.optim, config.run
    rules = [
        (
            m.hidden_size % m.num_heads == 0,
            f"model.num_heads = {m.num_heads}: must divide model.hidden_size = {m.hidden_size}",
        ),
        (
            m.num_layers % m.copies == 0,
            f"model.num_groups = {m.num_groups}: must divide model.num_layers = {m.num_layers}",
        ),
        (
            m.share != "none" or m.num_groups == 1,
            f"model.num_groups = {m.num_groups}: needs model.share = attention, ffn or all; set it to 1",
        ),
        (
            m.embedding_size <= m.hidden_size,
            f"model.embedding_size = {m.embedding_size}: must be at most model.hidden_size = {m.hidden_size}",
        ),
        (
            m.token_types != 1 or not d.pairs,
            "model.token_types = 1: two segments need two; set it to 2, or to 0 for no token types",
        ),
        (not m.pair_head or m.pooler, "model.pair_head = True: needs model.pooler = True"),
        (
            config.objective.pair == 0.0 or (m.pair_head and d.pairs),
            f"objective.pair = {config.objective.pair}: needs model.pair_head = True and data.examples = nsp or sop;"
            " set it to 0.0 to train without a pair loss",
        ),
        (
            any(vars(config.objective).values()),
            "objective: every coefficient is 0.0; set objective.mlm to 1.0",
        ),
        (
            d.seq_len <= m.max_positions,
            f"data.seq_len = {d.seq_len}: must be at most model.max_positions = {m.max_positions}",
        ),
        (
            d.max_predictions <= d.seq_len,
            f"data.max_predictions = {d.max_predictions}: must be at most data.seq_len = {d.seq_len}",
        ),
        (
            d.batch_size % o.accumulate == 0,
            f"optim.accumulate = {o.accumulate}: must divide data.batch_size = {d.batch_size}",
        ),
        (
            o.warmup_steps <= r.steps,
            f"optim.warmup_steps = {o.warmup_steps}: must be at most run.steps = {r.steps}",
        ),
        (d.source.strip() != "", "data.source = '': name a file, a pattern or 'builtin'"),
    ]
    rules += _data_relations(d) + _run_relations(r) + _teacher_relations(config.objective, config.teacher)
    return [message for holds, message in rules if not holds]


def _list_errors(d: Any) -> list[str]:
    """Fields that are lists of numbers in a string, which the readers of `row_lengths` and `shares` rely on."""
    errors = []
    try:
        if not (all(share > 0 for share in d.shares) and math.isfinite(sum(d.shares))):
            raise ValueError
    except ValueError:
        errors.append(f"data.mix = {d.mix!r}: must be positive numbers, one for each source, as '0.7,0.3'")
    try:
        lengths = d.row_lengths
        if list(lengths) != sorted(set(lengths)) or lengths[0] < 5 or lengths[-1] != d.seq_len:
            raise ValueError
    except ValueError:
        fix = f"must be ascending lengths that end with data.seq_len = {d.seq_len}, as '128,256,512'"
        errors.append(f"data.buckets = {d.buckets!r}: {fix}")
    return errors


def _data_relations(d: Any) -> list[tuple[bool, str]]:
    entries = [entry for entry in d.source.split(",") if entry.strip()]
    return [
        (
            not d.mix or d.prepared != "" or len(d.shares) == len(entries),
            f"data.mix = {d.mix!r}: data.source has {len(entries)} entries; name a share for each",
        ),
        (not d.buckets or d.packing == 1, f"data.packing = {d.packing}: rows in buckets hold one example; set it to 1"),
        (not d.buckets or not d.mix, f"data.mix = {d.mix!r}: does not go with data.buckets; set one of them to ''"),
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
            d.mask_count <= d.max_predictions,
            f"data.mask_count = {d.mask_count}: must be at most data.max_predictions = {d.max_predictions}",
        ),
    ]


def _run_relations(r: Any) -> list[tuple[bool, str]]:
    return [
        (r.seed < 2**32, f"run.seed = {r.seed}: must be below 2**32, the width of JAX's seeds"),
        (
            r.init_from != "" or r.init_layers == "spread",
            f"run.init_layers = {r.init_layers!r}: needs run.init_from; name the model there",
        ),
        (
            r.init_layers in ("spread", "first", "second") or all(x.isdecimal() for x in r.init_layers.split(",")),
            f"run.init_layers = {r.init_layers!r}: must be spread, first, second or layers such as '0,2,4'",
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
            teacher.layers in ("last", "every") or all(x.isdecimal() for x in teacher.layers.split(",")),
            f"teacher.layers = {teacher.layers!r}: must be last, every or the teacher's layers, as '1,3,5'",
        ),
        (
            hidden or (teacher.layers == "last" and teacher.projection == 0),
            "teacher.layers, teacher.projection: need objective.cosine or objective.hidden_mse; leave them",
        ),
    ]
