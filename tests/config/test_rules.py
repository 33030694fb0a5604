"""`bertjax.config.rules`: each impossible value and each broken relation is named, with its field, value and fix."""

import pytest

from bertjax.config.recipe import from_dict, override, to_dict
from bertjax.config.schema import Config
from bertjax.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "fields", "named"),
    [
        ("model", {"num_heads": 5}, "model.num_heads = 5"),
        (
            "run",
            {"keep_best": "eval_mlm_loss", "save_every": 0},
            "run.keep_best = 'eval_mlm_loss': only the last checkpoint would be evaluated, as no multiple of"
            " run.save_every = 0 and run.eval_every = 5000 is below run.steps = 1000000; let run.eval_every be",
        ),
        ("run", {"keep_best": "eval_mlm_loss", "eval_every": 0}, "run.keep_best = 'eval_mlm_loss': only the last"),
        ("run", {"keep_best": "x", "save_every": 999, "eval_every": 1001, "steps": 999_999}, "run.keep_best = 'x'"),
        ("run", {"init_layers": (0,)}, "run.init_layers = \\(0,\\): needs run.init_from"),
        ("run", {"init_from": "x", "init_layers": (0, -1)}, "run.init_layers = \\(0, -1\\): must be at least 0"),
        ("model", {"positions": "rotary", "num_heads": 256}, "heads of 3 are odd"),
        ("model", {"rotary_base": 0.5}, "model.rotary_base = 0.5"),
        ("data", {"mask_shares": (0.8, 0.1)}, "three shares that add up to 1"),
        ("data", {"mask_shares": (0.8, 0.1, 0.2)}, "three shares that add up to 1"),
        ("data", {"mask_shares": (1.2, -0.1, -0.1)}, "-0.1\\): must be at least 0"),
        ("model", {"share": "al"}, "one of none, attention, ffn, all"),
        ("model", {"share": "all", "num_groups": 5}, "model.num_groups = 5"),
        ("model", {"num_groups": 2}, "needs model.share"),
        ("model", {"embedding_size": 1024}, "model.embedding_size = 1024"),
        ("model", {"heads": ("mlm_head", "pair_head")}, "pair_head needs pooler"),
        ("model", {"heads": ("mlm_head", "mlm_head")}, "names a head twice"),
        ("model", {"heads": ("mlm",)}, "must be one of mlm_head, pooler, pair_head"),
        ("model", {"heads": ("pooler",)}, "add mlm_head"),
        ("model", {"dropout": 1.0}, "below 1"),
        ("data", {"examples": "doc_sentences"}, "objective.pair"),
        ("data", {"seq_len": 1024}, "model.max_positions = 512"),
        ("data", {"max_predictions": 200}, "data.seq_len = 128"),
        ("data", {"mix": (0.5, 0.0), "prepared": "x"}, "must be positive"),
        ("data", {"mix": (0.5, 0.5)}, "data.source has 1 entries"),
        ("data", {"buckets": (64, 100)}, "end with data.seq_len = 128"),
        ("data", {"buckets": (64, 32, 128)}, "ascending"),
        ("data", {"buckets": (64, 128), "packing": 2}, "data.packing = 2"),
        ("data", {"buckets": (64, 128), "mix": (1.0,), "prepared": "x"}, "does not go with data.buckets"),
        ("data", {"packing": 26}, "data.packing = 26"),
        ("data", {"masking": "ngram", "mask_smoothing": 0.7}, "data.mask_smoothing = 0.7"),
        ("data", {"mask_together": True}, "data.mask_together"),
        (
            "data",
            {"alphabet": "smiles", "format": "lines", "case": "uncased"},
            "data.case = uncased: data.alphabet = smiles",
        ),
        ("data", {"alphabet": "dna", "case": "cased"}, "data.format = auto: data.alphabet = dna"),
        (
            "data",
            {"alphabet": "protein", "case": "cased", "format": "jsonl"},
            "data.examples = nsp: needs documents",
        ),
        ("data", {"format": "ids"}, "data.examples = nsp: needs documents"),
        ("data", {"format": "lines"}, "data.examples = nsp: needs documents"),
        ("data", {"kmer": 3}, "data.kmer = 3: needs data.alphabet = dna"),
        ("data", {"mask_count": 21}, "data.max_predictions = 20"),
        ("data", {"mask_count": 20, "final_mask_rate": 0.1}, "data.mask_count = 20 is in place of rates"),
        ("data", {"mask_rate": 0.3, "final_mask_rate": 0.15}, "data.max_predictions = 20: too few"),
        ("data", {"final_mask_rate": 0.3}, "data.max_predictions = 20: too few"),
        ("optim", {"lr": float("nan")}, "finite"),
        ("optim", {"lr": 1e300}, "optim.lr = 1e\\+300: must be a finite number that float32 holds"),
        ("run", {"seed": 2**32}, "run.seed"),
        ("run", {"steps": 2**31}, "run.steps = 2147483648: must be below 2147483648"),
        ("run", {"init_from": "x", "init_layers": (10**30,)}, "must be below 2147483648"),
        ("model", {"vocab_size": 99_999_999_999}, "model.vocab_size = 99999999999: must be at least 6 and below"),
        ("model", {"hidden_size": 10**6, "embedding_size": 768}, "model.hidden_size = 1000000: must be at least 1"),
        ("model", {"max_positions": 10**7}, "model.max_positions = 10000000"),
        ("model", {"num_layers": 10**5}, "model.num_layers = 100000"),
        ("data", {"seq_len": 10**7}, "data.seq_len = 10000000: must be at most model.max_positions"),
        ("data", {"batch_size": 10**9}, "data.batch_size = 1000000000"),
        ("data", {"max_ngram": 99_999_999}, "data.max_ngram = 99999999"),
        ("data", {"loader_threads": 10**6}, "data.loader_threads = 1000000"),
        ("data", {"loader_workers": 100_000}, "data.loader_workers = 100000"),
        ("data", {"prepare_workers": 100_000}, "data.prepare_workers = 100000"),
        ("data", {"tokenizer": "~nosuchuser/x"}, "data.tokenizer = '~nosuchuser/x': there is no user nosuchuser"),
        ("data", {"source": ("a", "~nosuchuser/x")}, "there is no user nosuchuser"),
        ("run", {"pairs": ("~nosuchuser/x",)}, "there is no user nosuchuser"),
        ("data", {"prepared": "a\0b"}, "must not hold the character NUL"),
        ("data", {"text_field": "a\0b"}, "must not hold the character NUL"),
        ("optim", {"accumulate": 3}, "data.batch_size = 256"),
        ("run", {"steps": 5}, "optim.warmup_steps"),
        ("optim", {"schedule": "cosine", "power": 0.5}, "optim.power = 0.5: belongs to optim.schedule = power"),
        ("optim", {"schedule": "cosine", "shift_decay": True}, "optim.shift_decay = True: belongs to"),
        ("optim", {"schedule": "cosine", "decay_steps": 5}, "needs optim.schedule = wsd_linear or wsd_sqrt"),
        ("optim", {"schedule": "wsd_sqrt", "decay_steps": 990_001}, "run.steps = 1000000 leave 990000 after"),
        ("optim", {"name": "stableadamw"}, "optim.bias_correction = False"),
        ("optim", {"name": "lamb", "decay_by_lr": False}, "optim.decay_by_lr = False"),
        ("optim", {"lr": 0.0, "decay_by_lr": False}, "optim.lr above 0.0"),
        ("objective", {"mlm": 0.0, "pair": 0.0}, "objective"),
        ("objective", {"mlm": 0.0, "pair": 0.0, "z": 1e-4}, "every coefficient but z is 0.0"),
    ],
)
def test_impossible_values_are_named(section, fields, named):
    values = to_dict(Config())
    values[section].update(fields)
    with pytest.raises(ConfigError, match=named.replace(".", r"\.").replace("?", r"\?")):
        from_dict(values)


def test_a_checkpoint_that_is_evaluated_before_the_last_is_enough_to_keep_the_best():
    """The least common multiple counts, whichever of the two is the larger."""
    for fields in (
        {"steps": 1_000_000, "save_every": 999, "eval_every": 1001},
        {"steps": 10_001, "save_every": 1000, "eval_every": 5000},
        {"steps": 10_001, "save_every": 5000, "eval_every": 1000},
    ):
        assert override(Config(), run={"keep_best": "eval_mlm_loss"} | fields).run.keep_best


def test_original_flaws_are_of_pairs():
    values = to_dict(Config())
    values["data"].update(examples="full_sentences", original_flaws=True)
    values["objective"]["pair"] = 0.0
    with pytest.raises(ConfigError, match=r"data\.original_flaws = True"):
        from_dict(values)


def test_no_number_is_beyond_float32():
    """A device would make it infinite."""
    for section, fields in to_dict(Config()).items():
        for name, value in fields.items():
            if type(value) is float:
                for huge in (1e300, 3.5e38, float("inf"), float("nan")):
                    with pytest.raises(ConfigError, match=rf"^{section}\.{name} = "):
                        override(Config(), **{section: {name: huge}})
    assert override(Config(), optim={"lr": 3.4e38}).optim.lr == 3.4e38


def test_whole_numbers_are_those_of_the_devices():
    """Every one of them: int32 is what counts there."""
    for section, fields in to_dict(Config()).items():
        for name, value in fields.items():
            if type(value) is int:
                with pytest.raises(ConfigError, match=f"{section}.{name} = {10**12}: must be .*below"):
                    from_dict({section: {name: 10**12}})


FINE_TUNING = {
    "classify": {"kind": "classify", "train": ("x.tsv",)},
    "span": {"kind": "span", "train": ("x.json",)},
    "choice": {"kind": "choice", "train": ("x.tsv",), "endings": ("a", "b", "c")},
}


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("", {"task": {"train": ("x",)}}, "task.train = .*: needs task.kind"),
        ("", {"sweep": {"lr": (1e-4,), "seeds": (1,)}}, "sweep.lr, sweep.seeds: is for fine-tuning"),
        ("classify", {"run": {"keep_best": "dev_loss"}}, "run.keep_best = 'dev_loss': is for pretraining; .*select"),
        ("classify", {"task": {"dev_share": 0.0}}, "task.dev_share = 0.0: nothing to measure on"),
        ("classify", {"task": {"endings": ("a", "b")}}, "needs task.kind = choice"),
        ("classify", {"task": {"labels": ("a", "a")}}, "names a label twice"),
        ("classify", {"data": {"mix": (1.0,)}}, "data.mix = .* is for pretraining"),
        ("classify", {"model": {"heads": ("classifier",)}}, "classifier needs pooler"),
        ("span", {"task": {"pair": "question"}}, "task.pair = 'question': span has no pairs"),
        ("span", {"task": {"max_question": 121}}, "task.max_question = 121: leaves no room"),
        ("choice", {"data": {"packing": 2}}, "data.packing = 2: a row holds all endings; set it to 3"),
        ("choice", {"task": {"endings": ("a",)}}, "name the columns of two or more"),
    ],
)
def test_relations_of_fine_tuning(kind, changes, named):
    config = Config()
    if kind:
        config = override(config, task=FINE_TUNING[kind], data={"packing": 3 if kind == "choice" else 1})
    with pytest.raises(ConfigError, match=named):
        override(config, **changes)
