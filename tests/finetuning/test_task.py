"""The task of learning labels follows from the config alone."""

import labelled_files
import pytest

from bertjax.config.recipe import override
from bertjax.errors import ConfigError
from bertjax.finetuning.task import fine_tuning, without_data


@pytest.mark.parametrize(
    ("kind", "head", "labels"),
    [
        ("classify", "classifier", ("0", "1")),
        ("tag", "tagger", ("0", "1")),
        ("span", "span_head", ()),
        ("choice", "classifier", ()),
    ],
)
def test_without_its_data_a_run_has_its_head_and_two_labels(kind, head, labels, tmp_path):
    config = without_data(labelled_files.config_of(tmp_path, kind))
    assert config.model.labels == labels and head in config.model.heads
    task = fine_tuning(config, batches=lambda row: iter(()))
    assert list(task.terms) == [kind] and task.flops_per_token > 0


def test_the_labels_of_a_task_are_those_of_the_model(tmp_path):
    config = labelled_files.config_of(tmp_path, "classify")
    assert without_data(override(config, task={"labels": ("a", "b", "c")})).model.labels == ("a", "b", "c")


def test_what_it_is_judged_by_is_of_dev_and_fits_the_kind(tmp_path):
    task = fine_tuning(without_data(labelled_files.config_of(tmp_path, "classify")), batches=lambda row: iter(()))
    assert task.selects == ("dev", "accuracy")
    numbers = without_data(override(labelled_files.config_of(tmp_path, "regress"), task={"metric": "accuracy"}))
    with pytest.raises(ConfigError, match=r"task\.metric = "):
        fine_tuning(numbers, batches=lambda row: iter(()))
