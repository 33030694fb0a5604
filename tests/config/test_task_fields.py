"""`bertjax.config.task_fields`: pretraining by default; and every recipe of fine-tuning is a config of its kind."""

import importlib.util
from pathlib import Path

import pytest

from bertjax.config.recipe import from_dict
from bertjax.config.task_fields import SweepConfig, TaskConfig

RECIPES = Path(__file__).parents[2] / "configs" / "finetune"
GLUE = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
FAMILIES = ("bert", "albert", "distilbert", "modernbert", "small")
ARGUMENTS = {
    "glue": [f"{task},{family}" for task in GLUE for family in FAMILIES] + list(GLUE),
    "classify": ["own", "agnews", "trec", "imdb"],
    "ner": ["files", "conll2003"],
    "squad": ["small", "v1", "v2"],
    "pair": [],
    "regress": [],
    "choice": [],
}
KINDS = {"ner": "tag", "squad": "span", "regress": "regress", "choice": "choice"}


def test_a_config_is_one_of_pretraining_unless_it_names_a_task():
    assert TaskConfig().kind == "" and not any(vars(SweepConfig()).values())


def test_every_recipe_is_known_here():
    assert {path.stem for path in RECIPES.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_recipes_are_valid_and_of_their_kind(name):
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    configs = {argument: from_dict(module.get_config(argument)) for argument in ARGUMENTS[name]}
    configs[""] = from_dict(module.get_config())
    for argument, config in configs.items():
        kind = "regress" if argument.startswith("stsb") else KINDS.get(name, "classify")
        assert config.task.kind == kind and config.data.row_lengths[-1] == config.data.seq_len <= 512
    if ARGUMENTS[name]:
        with pytest.raises(ValueError, match="'nothing'"):
            module.get_config("nothing")


def test_albert_takes_the_steps_of_its_table():
    """Lan et al. 2020, table 14."""
    spec = importlib.util.spec_from_file_location("glue", RECIPES / "glue.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = from_dict(module.get_config("rte,albert"))
    assert (config.run.steps, config.optim.warmup_steps, config.optim.lr) == (800, 200, 3e-5)
    assert (config.data.batch_size, config.model.dropout, config.model.classifier_dropout) == (32, 0.1, 0.1)
    assert config.data.seq_len == 512 and config.task.epochs == 0.0
