"""`bertjax.finetuning.evaluation`: in batches of any kind, what the model says of each text alone; and of a run."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from finetuned import LABELS, config_of, params_of, write, write_pieces
from small import one_device_mesh

from bertjax import batch
from bertjax.config.schema import ComputeConfig
from bertjax.errors import CheckpointError, DataError
from bertjax.finetuning import evaluation as module
from bertjax.finetuning import scores
from bertjax.finetuning.evaluation import evaluate_parts, evaluator, held_out, labelled_forward, logits_step
from bertjax.labelled.encode import encode
from bertjax.labelled.records import Answer, Record
from bertjax.parallel import sharding
from bertjax.trained.inference import Loaded

LETTERS = "a b c d e f g h i j k l m n o p q r s t u v w x y z"


def texts(count, *, seed=0):
    """Of one to some words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(LETTERS.split(), rng.integers(1, 12))) for _ in range(count)]


def records_of(kind, count=21):
    rng = np.random.default_rng(2)
    firsts, seconds = texts(count), texts(count, seed=1)
    found = []
    for i, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        place, unlabelled = f"FILE: line {i}", i % 7 == 3
        if kind == "tag":
            words = tuple((first + " " + second).split())
            tags = None if unlabelled else tuple(rng.choice(LABELS["tag"], len(words)))
            found.append(Record(place, words, tags=tags))
        elif kind == "span":
            context = first + " " + second + " " + LETTERS
            answers = () if i % 5 == 1 else (Answer(context.index(second), second), Answer(0, context[:1]))
            found.append(Record(place, ("a b?", context), answers=None if unlabelled else answers))
        elif kind == "choice":
            found.append(Record(place, ("a", first, second), None if unlabelled else str(rng.integers(2))))
        else:
            label = str(rng.normal()) if kind == "regress" else str(rng.choice(LABELS["classify"]))
            found.append(Record(place, (first, second), None if unlabelled else label))
    return found


def said(model, kind, records):
    """What a model says of each record by itself."""
    if kind == "tag":
        return [tuple(one.tags) for one in model.tag([record.texts for record in records])]
    columns = list(zip(*(record.texts for record in records), strict=True))
    if kind == "span":
        return [one.text for one in model.answer(*columns)]
    if kind == "choice":
        return [str(one.ending) for one in model.choose(columns[0], list(zip(*columns[1:], strict=True)))]
    found = model.classify(*columns)
    return [one.score if kind == "regress" else one.label for one in found]


def measured(config, words, records):
    """The metrics and the predictions, on one device."""
    mesh = one_device_mesh(config)
    params = jax.device_put(params_of(config.model), sharding.replicated(mesh))
    return held_out(config, words, records, mesh)(params)


LAYOUTS = {
    "plain": {},
    "packed": {"packing": 3, "seq_len": 32},
    "buckets": {"buckets": (16, 32)},
}


@pytest.mark.parametrize(
    ("kind", "layout"),
    [("classify", "packed"), ("regress", "packed"), ("tag", "packed"), ("span", "packed"), ("choice", "plain")]
    + [("classify", "buckets"), ("tag", "buckets"), ("span", "buckets")],
)
def test_predictions_are_those_of_the_model_on_each_text(kind, layout, tmp_path):
    """And the metrics are those of the predictions, of records with labels alone."""
    span = {"unanswerable": "yes", "stride": 7, "null_threshold": -2.0} if kind == "span" else {}
    pair = {"pair": "pair"} if kind in ("classify", "regress") else {}
    config = config_of(kind, task=span | pair, data={"batch_size": 4} | LAYOUTS[layout])
    words, records = write_pieces(tmp_path / "vocab.txt"), records_of(kind)
    metrics, predicted = measured(config, words, records)
    task, heads = config.task, frozenset(config.model.heads)
    model = Loaded(config.model, ComputeConfig(), params_of(config.model), words, heads, task, config.data.seq_len)
    expected = said(model, kind, records)
    if kind == "regress":
        np.testing.assert_allclose([one.value for one in predicted], expected, atol=1e-5)
    else:
        assert [one.value for one in predicted] == expected
        assert len(set(expected)) > 1
    known = [i for i, record in enumerate(records) if record.labelled]
    truth = [scores.truth(kind, records[i]) for i in known]
    loss = metrics.pop("loss")
    found = scores.of(kind, config.model.labels, truth, [predicted[i].value for i in known])
    assert 0 < len(known) < len(records) and loss > 0.0
    assert metrics == pytest.approx(found, abs=1e-5)


def losses(kind, records, predicted):
    """By hand, from probabilities and numbers."""
    for record, one in zip(records, predicted, strict=True):
        if record.label is not None:
            yield (one.value - float(record.label)) ** 2 if kind == "regress" else -np.log(one.scores[record.label])


@pytest.mark.parametrize("kind", ["classify", "regress", "choice"])
def test_the_loss_is_the_mean_over_what_has_a_label(kind, tmp_path):
    """Over whole batches and the last, which is not full."""
    config = config_of(kind, task={"pair": "" if kind == "choice" else "pair"}, data={"batch_size": 8})
    records = records_of(kind)
    metrics, predicted = measured(config, write_pieces(tmp_path / "vocab.txt"), records)
    assert metrics["loss"] == pytest.approx(np.mean(list(losses(kind, records, predicted))), rel=1e-5)


def test_without_labels_there_is_nothing_but_predictions(tmp_path):
    config = config_of("classify")
    records = [replace(record, texts=record.texts[:1], label=None) for record in records_of("classify")]
    metrics, predicted = measured(config, write_pieces(tmp_path / "vocab.txt"), records)
    assert metrics == {} and len(predicted) == len(records)


@pytest.mark.parametrize(("unanswerable", "lacks"), [("auto", True), ("no", False), ("yes", True)])
def test_questions_may_have_no_answer_where_one_has_none(unanswerable, lacks, tmp_path):
    config = config_of("span", task={"unanswerable": unanswerable, "null_threshold": -1e6, "stride": 7})
    words, records = write_pieces(tmp_path / "vocab.txt"), records_of("span")
    answerable = [record for record in records if record.answers]
    for some, expected in ((records, lacks), (answerable, unanswerable == "yes")):
        _, predicted = measured(config, words, some)
        assert all((one.value == "") == expected for one in predicted)


def test_a_step_is_compiled_once_for_all_evaluations_and_runs_on_every_device(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(module, "logits_step", lambda *a: steps.append(logits_step(*a)) or steps[-1])
    config = config_of("classify", data={"batch_size": 8}, task={"pair": "pair"})
    words, records = write_pieces(tmp_path / "vocab.txt"), records_of("classify")
    examples = encode(records, config.task, config.model.labels, words, seq_len=32, token_types=True)
    results = []
    for mesh in (one_device_mesh(config), sharding.make_mesh(config.mesh)):
        forward, settings = labelled_forward(config), (config.data, words, config.task, config.model.labels, mesh)
        measure = evaluator("classify", forward, examples, records, *settings)
        params = jax.device_put(params_of(config.model), sharding.replicated(mesh))
        first, again = measure(params), measure(params)
        assert first == again and steps[-1].compiles() == 1
        results.append(first[0])
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_only_the_head_of_the_task_is_computed():
    """Also in a model with others, whose inputs a batch of labelled examples lacks."""
    config = config_of("tag", model={"heads": ("mlm_head", "pooler", "tagger")})
    step = logits_step("tag", labelled_forward(config), one_device_mesh(config))
    shapes = batch.labelled("tag", config.data)
    inputs = {name: jax.ShapeDtypeStruct(field.shape, field.dtype) for name, field in shapes.items()}
    params = jax.device_put(params_of(config.model), sharding.replicated(one_device_mesh(config)))
    outputs = step.lower(params, inputs).out_info
    assert set(outputs) == {"tag_logits", "loss", "weight"}


# Of a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A work directory of a run that tells three labels apart; what it was trained on and is measured on."""
    directory = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(3)
    for name, count in (("train", 40), ("dev", 9), ("test", 5)):
        lines = [f"{text}\t{rng.choice(LABELS['classify'])}\n" for text in texts(count, seed=count)]
        (directory / f"{name}.tsv").write_text("text\tlabel\n" + "".join(lines))
    files = {name: (str(directory / f"{name}.tsv"),) for name in ("train", "dev", "test")}
    config = config_of("classify", task=files | {"name": "moods"}, data={"batch_size": 8})
    return config, write(directory, config)


def test_a_run_is_measured_on_its_dev_and_its_test(run):
    config, directory = run
    result = evaluate_parts(config, directory)
    assert result == evaluate_parts(config, directory)
    assert (result["task"], result["metric"], result["steps"]) == ("moods", "accuracy", 1)
    assert result["workdir"] == str(directory) and "data" not in result
    for name, count in (("dev", 9), ("test", 5)):
        lines = (directory / f"{name}.tsv").read_text().splitlines()[1:]
        asked, truth = zip(*(line.split("\t") for line in lines), strict=True)
        model = Loaded(
            config.model,
            ComputeConfig(),
            params_of(config.model),
            write_pieces(directory / "tokenizer" / "vocab.txt"),
            frozenset(config.model.heads),
        )
        given = [one.label for one in model.classify(asked)]
        assert result[name]["examples"] == count
        assert result[name]["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(truth, given, strict=True)]))
    json.dumps(result, allow_nan=False)
    assert evaluate_parts(config, directory, step=1) == result
    with pytest.raises(CheckpointError, match="/2: there is no such step"):
        evaluate_parts(config, directory, step=2)


def test_a_run_without_a_dev_is_measured_on_the_share_of_train(run):
    config, directory = run
    task = replace(config.task, dev=(), test=(), dev_share=0.25)
    result = evaluate_parts(replace(config, task=task), directory)
    assert result["dev"]["examples"] == 10 and "test" not in result


def test_other_examples_can_be_named(run):
    config, directory = run
    result = evaluate_parts(config, directory, (str(directory / "train.tsv"), str(directory / "dev.tsv")))
    assert result["data"]["examples"] == 49 and not {"dev", "test"} & set(result)
    (directory / "odd.tsv").write_text("text\tlabel\na\tgood\nb\tgod\n")
    with pytest.raises(DataError, match="odd.tsv.*line 3: the label 'god' is none of those of the model"):
        evaluate_parts(config, directory, (str(directory / "odd.tsv"),))
