"""The recipes at their real sizes, from shapes alone: published parameter counts, to the last digit."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import light
import pytest
from small import tiny

from bertjax.bench import info as info_module
from bertjax.bench import probe
from bertjax.bench.info import ELSEWHERE, here, info, table
from bertjax.config.recipe import from_dict, override

ROOT = Path(__file__).parents[2]

COUNTS = {
    # recipe: (encoder without pooler, encoder with pooler, whole pretraining model)
    "bert:tiny": (4_369_408, 4_385_920, 4_433_468),
    "bert:mini": (11_104_768, 11_170_560, 11_267_900),
    "bert:small": (28_500_992, 28_763_648, 29_058_876),
    "bert:medium": (41_110_528, 41_373_184, 41_668_412),
    "bert:base": (108_891_648, 109_482_240, 110_106_428),
    "bert:large": (334_092_288, 335_141_888, 336_226_108),
    "albert:base": (11_092_992, 11_683_584, 11_813_810),
    "albert:large": (16_634_368, 17_683_968, 17_847_474),
    "albert:xlarge": (54_528_512, 58_724_864, 59_021_490),
    "albert:xxlarge": (205_814_272, 222_595_584, 223_158_450),
    "albert:base_v2": (11_092_992, 11_683_584, 11_813_810),
    # With two rows of padding in the position table: 124,697,433 and 355,412,057 in transformers.
    "roberta:base": (124_053_504, 124_053_504, 124_697_433 - 2 * 768),
    "roberta:large": (354_308_096, 354_308_096, 355_412_057 - 2 * 1024),
    "distilbert": (66_362_880, 66_362_880, 66_985_530),
    "modernbert:17m": (None, None, 16_913_600),
    "modernbert:32m": (None, None, 32_081_344),
    "modernbert:68m": (None, None, 68_457_664),
    "modernbert:base": (149_014_272, 149_014_272, 149_655_232),
    "modernbert:large": (394_781_696, 394_781_696, 395_881_664),
    "neobert": (221_665_536, 221_665_536, 245_136_954),
    "nomic": (136_731_648, 136_731_648, None),
}

OTHERS = {
    # recipe with other numbers: encoder, whole pretraining model
    "modernbert:base, Ettin's 1b": (
        {"num_layers": 28, "hidden_size": 1_792, "embedding_size": 1_792, "num_heads": 28, "ffn_size": 3_840},
        (None, 1_031_314_112),
    ),
    "modernbert:base, mmBERT small": (
        {
            "vocab_size": 256_000,
            "hidden_size": 384,
            "embedding_size": 384,
            "num_heads": 6,
        },
        (None, 140_897_536),
    ),
    "modernbert:base, mmBERT base": ({"vocab_size": 256_000}, (None, 307_786_240)),
    "neobert, EuroBERT-210m": (
        {
            "vocab_size": 128_256,
            "num_layers": 12,
            "ffn_size": 3_072,
            "rotary_pairs": "halves",
            "biases": "none",
        },
        (211_766_016, 310_266_624),
    ),
}

SHARING = {
    # (share, embedding size): whole pretraining model of ALBERT-base's shape
    ("all", 128): 11_813_810,
    ("attention", 128): 63_777_458,
    ("ffn", 128): 37_816_754,
    ("none", 128): 89_780_402,
    ("all", 768): 31_738_418,
    ("attention", 768): 83_702_066,
    ("ffn", 768): 57_741_362,
    ("none", 768): 109_705_010,
}


def load(recipe):
    name, _, argument = recipe.partition(":")
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, from_dict(module.get_config(*([argument] if argument else [])))


@pytest.mark.parametrize("recipe", COUNTS)
def test_parameter_counts(recipe):
    parameters = info(load(recipe)[1])["parameters"]
    pooled = parameters["encoder"] + parameters["pooler"]
    counted = (parameters["encoder"], pooled, parameters["total"])
    assert all(published in (None, count) for count, published in zip(counted, COUNTS[recipe], strict=True)), counted
    assert sum(v for k, v in parameters.items() if k != "total") == parameters["total"]


@pytest.mark.parametrize("name", OTHERS)
def test_parameter_counts_of_the_same_encoder_with_other_numbers(name):
    changes, published = OTHERS[name]
    parameters = info(override(load(name.split(",")[0])[1], model=changes))["parameters"]
    counted = (parameters["encoder"], parameters["total"])
    assert all(one in (None, count) for count, one in zip(counted, published, strict=True)), counted


def test_a_head_for_labels_is_counted_where_there_is_one():
    config = load("bert:base")[1]
    assert set(info(config)["parameters"]) == {"encoder", "mlm_head", "pooler", "pair_head", "total"}
    model = replace(config.model, heads=("pooler", "classifier"), labels=("a", "b", "c"))
    assert info(replace(config, model=model))["parameters"]["classifier"] == 768 * 3 + 3


@pytest.mark.parametrize(("share", "embedding_size"), SHARING)
def test_sharing_modes(share, embedding_size):
    config = override(load("albert:base")[1], model={"share": share, "embedding_size": embedding_size})
    assert info(config)["parameters"]["total"] == SHARING[share, embedding_size]


def test_every_recipe_states_what_it_is():
    for path in (ROOT / "configs").rglob("*.py"):
        module, config = load(path.relative_to(ROOT / "configs").with_suffix("").as_posix())
        for word in ("Expect", "Hardware", "Command"):
            assert word in module.__doc__, path


def test_albert_versions_differ_in_dropout_and_length():
    (_, v1), (_, v2) = load("albert:large_v1"), load("albert:large_v2")
    assert (v1.model.dropout, v2.model.dropout) == (0.1, 0.0)
    assert (v1.run.steps, v2.run.steps) == (125_000, 3_000_000)
    assert load("albert:xxlarge_v1")[1].model.dropout == 0.0


def test_a_run_costs_its_tokens():
    _, config = load("bert:base")
    values = info(override(config, run={"steps": 20_000}, data={"batch_size": 32}))
    run = values["run"]
    assert run["tokens"] == 20_000 * 32 * 128
    assert run["flops"] == run["tokens"] * values["flops_per_token"]["total"]
    hours = values["hours_elsewhere"]["NVIDIA H100, 40% of 989 TFLOP/s"]
    assert hours == pytest.approx(run["flops"] / (0.4 * 989e12) / 3600)
    assert len(values["hours_elsewhere"]) == len(ELSEWHERE) >= 6


def test_a_run_in_phases_costs_their_sum(monkeypatch):
    """Each has its own length; and `here` looks at each as at a run by itself."""
    _, config = load("bert:base,phases")
    values = info(config)
    one, two = values["phase 1 of 2"], values["phase 2 of 2"]
    assert (one["tokens"], two["tokens"]) == (900_000 * 256 * 128, 100_000 * 256 * 512)
    assert two["flops_per_token"] > one["flops_per_token"] == values["flops_per_token"]["total"]
    assert {name: one[name] + two[name] for name in values["run"]} == values["run"]
    assert two["schedule_from_step"] == 1 and two["schedule_to_step"] == 1_000_000
    monkeypatch.setattr(info_module, "_here", lambda config: {"time_here": {"hours": config.run.steps}})
    hours = {"time_here, phase 1 of 2": {"hours": 900_000}, "time_here, phase 2 of 2": {"hours": 100_000}}
    assert here(config) == hours and here(load("bert:base")[1]) == {"time_here": {"hours": 1_000_000}}


def test_a_number_that_is_not_known_is_said_to_be():
    assert table({"here": {"largest_batch": None, "hours": 0.25}}).splitlines()[1].split() == [
        "largest",
        "batch",
        "not",
        "known",
    ]


def test_this_machine(monkeypatch, capsys):
    """What a small run takes here; what it says of its work goes to standard error."""
    monkeypatch.setattr("bertjax.bench.memory.pretraining", light.task)
    monkeypatch.setattr(probe, "SECONDS", 0.1)
    monkeypatch.setattr("bertjax.parallel.memory.host_free", lambda: 8 * 4_000_000)
    values = here(tiny(run={"peak_tflops": 1e-3}))
    memory, time = values["memory_here"], values["time_here"]
    assert 0 < memory["step"] < memory["training"] < memory["free"] == 4_000_000
    assert memory["largest_batch"] % 8 == 0 and memory["largest_batch"] > 100
    assert time["tokens_per_second"] == pytest.approx(8 * 32 / time["seconds_per_step"])
    assert time["hours"] == pytest.approx(6 * time["seconds_per_step"] / 3600) and time["mfu"] > 0
    out, err = capsys.readouterr()
    assert out == "" and "compiling" in err and "timing a step of 8 rows" in err


def test_table_shows_the_total():
    assert "110,106,428" in table(info(load("bert:base")[1]))
