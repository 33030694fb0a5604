"""Heads for labels: out and in again bit for bit, in torch what they are here, and every wrong field is a line."""

import json
import warnings
from dataclasses import replace

import jax
import numpy as np
import pytest
from directories import FINETUNED, assert_same, hf, model_of, ours, reconfigure, restore, stored, write

from bertjax.config.schema import ComputeConfig
from bertjax.errors import CheckpointError, ConfigError
from bertjax.huggingface import structure
from bertjax.huggingface.directory import read
from bertjax.model import network

ENDINGS = {
    "classify": "SequenceClassification",
    "regress": "SequenceClassification",
    "choice": "MultipleChoice",
    "tag": "TokenClassification",
    "span": "QuestionAnswering",
}
PIPELINES = {
    "classify": "text-classification",
    "regress": "text-classification",
    "choice": "multiple-choice",
    "tag": "token-classification",
    "span": "question-answering",
}
GIVES = {"classify": "class_logits", "regress": "class_logits", "choice": "class_logits", "tag": "tag_logits"}
LENGTHS = (32, 9, 21)


def inputs():
    """Rows of different lengths, padded; the second half of each is segment B."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(5, 400, size=(len(LENGTHS), max(LENGTHS)))
    real = np.arange(max(LENGTHS))[None] < np.array(LENGTHS)[:, None]
    types = real & (np.arange(max(LENGTHS))[None] >= np.array(LENGTHS)[:, None] // 2)
    return np.where(real, tokens, 0).astype(np.int32), types.astype(np.int32), real.astype(np.int32)


def logits(config, params, kind):
    """What this model gives for `inputs`: [rows, labels] or [rows, positions, labels]."""
    tokens, types, real = inputs()
    batch = {
        "tokens": tokens,
        "segments": real,
        "positions": np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape),
        "token_types": types * (config.token_types > 1),
        "pair_positions": np.zeros((len(tokens), 1), np.int32),
    }
    outputs = jax.jit(network.apply, static_argnums=(0, 1))(config, ComputeConfig(), params, batch)
    found = np.asarray(outputs[GIVES.get(kind, "span_logits")])
    assert found.dtype == np.float32
    return found[:, 0] if "classifier" in config.heads else found


def torch_logits(peer, config, kind):
    torch = pytest.importorskip("torch")
    tokens, types, real = (torch.tensor(x.astype(np.int64)) for x in inputs())
    given = {"input_ids": torch.where(real > 0, tokens, peer.config.pad_token_id), "attention_mask": real}
    if config.token_types:
        given["token_type_ids"] = types * (config.token_types > 1)
    if kind == "choice":  # one question, whose endings are the rows
        given = {name: x[None] for name, x in given.items()}
    with torch.no_grad():
        outputs = peer(**given)
    if kind == "span":
        return np.stack([outputs.start_logits.numpy(), outputs.end_logits.numpy()], axis=-1)
    return outputs.logits.numpy().T if kind == "choice" else outputs.logits.numpy()


@pytest.mark.parametrize("kind", FINETUNED)
def test_what_is_written_is_read_bit_for_bit(kind, tmp_path):
    config, params = ours(kind)
    contents = read(write(tmp_path / "model", kind))
    assert contents.config == config and "mlm_head" in contents.fresh
    assert_same(contents.params, params)
    base, asked = FINETUNED[kind]
    values = json.loads((tmp_path / "model" / "config.json").read_text())
    (architecture,) = values["architectures"]
    assert architecture == f"{structure.CLASSES[structure.nearest(config)]}For{ENDINGS[asked]}"
    if config.labels:
        assert list(values["id2label"].values()) == list(config.labels)
        assert values["label2id"] == {label: i for i, label in enumerate(config.labels)}
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"pipeline_tag: {PIPELINES[asked]}\n" in card and "Fine-tuned with bertjax" in card
    assert all(f"`{label}`" in card for label in config.labels)
    assert not (tmp_path / "model" / "modules.json").exists()


@pytest.mark.parametrize("kind", FINETUNED)
def test_torch_loads_every_weight_and_computes_the_same(kind, tmp_path):
    transformers, (config, params) = hf(), ours(kind)
    directory = write(tmp_path / "model", kind)
    asked = FINETUNED[kind][1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        auto = getattr(transformers, f"AutoModelFor{ENDINGS[asked]}")
        peer, report = auto.from_pretrained(directory, output_loading_info=True)
    assert not any(report.values()), report
    if config.labels:
        assert peer.config.id2label == dict(enumerate(config.labels))
        assert peer.config.label2id == {label: i for i, label in enumerate(config.labels)}
    if asked in ("classify", "regress"):
        problem = "regression" if asked == "regress" else "single_label_classification"
        assert peer.config.problem_type == problem
    rates = {module.p for name, module in peer.named_modules() if name in ("dropout", "drop", "classifier.dropout")}
    assert not rates or rates == {config.classifier_dropout}
    found, expected = logits(config, params, asked), torch_logits(peer.eval(), config, asked)
    if asked in ("tag", "span"):
        real = inputs()[2] > 0
        found, expected = found[real], expected[real]
    assert np.abs(expected).max() > 0.05 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", FINETUNED)
def test_what_torch_writes_is_read(kind, tmp_path):
    """With the names of labels that it gives by itself; of two it writes none."""
    base, asked = FINETUNED[kind]
    peer = getattr(hf(), f"AutoModelFor{ENDINGS[asked]}").from_pretrained(write(tmp_path / "model", kind))
    count = {"classify": 2, "tag": 2, "regress": 1}.get(asked, 0)
    names = {"id2label": None, "label2id": None, "num_labels": count or 2}
    fresh = type(peer)(type(peer.config).from_dict(peer.config.to_dict() | names))
    fresh.save_pretrained(tmp_path / "theirs")
    contents = read(tmp_path / "theirs")
    assert contents.config.labels == tuple(f"LABEL_{i}" for i in range(count))
    assert contents.config.heads == model_of(kind).heads
    found = logits(contents.config, contents.params, asked)
    expected = torch_logits(fresh.eval(), contents.config, asked)
    real = inputs()[2] > 0 if asked in ("tag", "span") else slice(None)
    np.testing.assert_allclose(found[real], expected[real], atol=1e-5, rtol=0)


# What is refused ----------------------------------------------------------------------------------------------------


def refused(directory, *texts):
    """By one error of a line, that names config.json."""
    with pytest.raises(CheckpointError) as error:
        read(directory)
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{directory / 'config.json'}: ") and all(text in line for text in texts), line


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("bert_classify", {"id2label": {"0": "no", "1": "yes"}}, "must name 0 to 2, one for each row"),
        ("bert_classify", {"id2label": {"0": "no", "1": "yes", "3": "x"}}, "must name 0 to 2"),
        ("bert_classify", {"id2label": ["no", "yes", "x"]}, "id2label = ['no', 'yes', 'x']"),
        ("bert_classify", {"id2label": {"0": "no", "1": 3, "2": "x"}}, "id2label: 3: must be text"),
        ("bert_classify", {"id2label": {"0": "no", "1": "\x1b[31m", "2": "x"}}, "without control characters"),
        ("bert_classify", {"id2label": {"0": "no", "1": "\ud800", "2": "x"}}, "id2label: '\\ud800'"),
        ("bert_classify", {"id2label": {"0": "no", "1": "no", "2": "x"}}, "'no': names two rows"),
        ("bert_classify", {"id2label": None, "num_labels": 2}, "num_labels = 2: the last layer has 3 rows"),
        ("bert_classify", {"problem_type": "multi_label_classification"}, "only 'single_label_classification' is"),
        ("bert_classify", {"problem_type": "regression"}, "only 'single_label_classification' is"),
        ("bert_regress", {"problem_type": "single_label_classification"}, "only 'regression' is"),
        ("bert_classify", {"classifier_dropout": 1.0}, "classifier_dropout = 1.0: must be a number"),
        ("distilbert_classify", {"seq_classif_dropout": "0.1"}, "seq_classif_dropout = '0.1'"),
        ("modernbert_mean", {"classifier_pooling": "max"}, "classifier_pooling = 'max': must be one of cls, mean"),
    ],
)
def test_a_wrong_field_is_one_line(kind, changes, named, tmp_path):
    directory = write(tmp_path / "model", kind)
    reconfigure(directory, **changes)
    refused(directory, named)


def test_the_fields_that_only_a_head_needs_are_not_asked_for_without_one(tmp_path):
    directory = write(tmp_path / "model")
    reconfigure(directory, id2label={"0": 3}, problem_type="x", classifier_dropout="y")
    assert read(directory).config.labels == ()


@pytest.mark.parametrize(
    ("kind", "rate"),
    [("bert_classify", 0.1), ("albert_classify", 0.1), ("distilbert_classify", 0.2), ("modernbert_mean", 0.0)],
)
def test_a_rate_of_dropout_that_is_not_there_is_that_of_transformers(kind, rate, tmp_path):
    directory = write(tmp_path / "model", kind)
    path = directory / "config.json"
    values = {name: x for name, x in json.loads(path.read_text()).items() if "class" not in name or "ifier_act" in name}
    path.write_text(json.dumps(values))
    assert read(directory).config.classifier_dropout == rate  # BERT's: that of its encoder


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("bert_classify", {"pooling": "mean"}, "model.pooling = mean: transformers' Bert has cls"),
        ("distilbert_classify", {"pooler_activation": "tanh"}, "model.pooler_activation = tanh: transformers' Distil"),
        (
            "modernbert_tag",
            {"token_transform": False},
            "model.token_transform = False: transformers' ModernBert has True",
        ),
        ("modernbert_mean", {"pooler_norm": False}, "model.pooler_norm = False: transformers' ModernBert has True"),
        ("bert_span", {"token_transform": True}, "model.token_transform = True: transformers' Bert has False"),
        ("nomic_tag", {"heads": ("span_head",)}, "for labels transformers' NomicBert has ForSequenceClassification"),
        ("bert_tag", {"heads": ("tagger", "span_head")}, "a model of transformers has one head for labels, as tagger"),
    ],
)
def test_what_no_class_holds_is_named(kind, changes, named):
    with pytest.raises(ConfigError) as error:
        structure.choose(replace(model_of(kind), **changes))
    assert named in str(error.value) and str(error.value).endswith("this model cannot be exported")
    assert len(str(error.value).splitlines()) == 1


# Which head it is ---------------------------------------------------------------------------------------------------


def test_a_pooler_beside_a_tagger_is_read_and_left_out(tmp_path):
    """As old versions of transformers wrote them; today's class has no place for it."""
    directory = write(tmp_path / "model", "bert_tag")
    pooler = {
        f"bert.pooler.dense.{leaf}": np.ones(shape, np.float32) for leaf, shape in (("weight", (32, 32)), ("bias", 32))
    }
    restore(directory, stored(directory) | pooler)
    contents = read(directory)
    assert contents.config.heads == ("pooler", "tagger") and (contents.params["pooler"]["kernel"] == 1).all()
    write(tmp_path / "again", "bert_tag", config=contents.config, params=contents.params)
    assert not any("pooler" in name for name in stored(tmp_path / "again"))
    assert "The pooler of pretraining has no place" in (tmp_path / "again" / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "head"), [("bert_classify", "classifier"), ("bert_tag", "tagger"), ("bert_span", "span_head")]
)
def test_without_the_name_of_a_class_the_tensors_tell(kind, head, tmp_path):
    directory = write(tmp_path / "model", kind)
    for told in (None, [], ["BertModel"], [3], "BertForTokenClassification"):
        reconfigure(directory, architectures=told)
        assert head in read(directory).config.heads


def test_a_last_layer_that_is_missing_is_missed(tmp_path):
    """Its other tensors tell that it should be there, but for those that are the MLM head's too."""
    for kind, gone, missed in (
        ("roberta_classify", "classifier.out_proj.weight", "classifier.out_proj.weight is missing"),
        ("bert_classify", "bert.pooler.dense", "pooler.dense.weight is missing"),
        ("distilbert_tag", "classifier.bias", "classifier.bias is missing"),
    ):
        directory = write(tmp_path / kind, kind)
        restore(directory, {name: x for name, x in stored(directory).items() if not name.startswith(gone)})
        with pytest.raises(CheckpointError, match=missed):
            read(directory)
