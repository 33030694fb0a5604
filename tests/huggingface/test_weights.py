"""Models of transformers are read and written as what its torch code computes, bit for bit where it is our own."""

import dataclasses
import functools
import json
import warnings

import jax
import numpy as np
import pytest
from directories import KINDS, UNSHARED, assert_same, hf, ours, real_classifier, shared, stored, write
from flax.traverse_util import flatten_dict
from oracle import layer_params, pretrain_outputs
from small import random_batch, tiny

from bertjax.config.schema import ComputeConfig
from bertjax.errors import CheckpointError
from bertjax.huggingface import config_json
from bertjax.huggingface.directory import read
from bertjax.model import network
from bertjax.tasks.terms import terms as pretraining_terms
from bertjax.train import objective

BATCH = {"batch_size": 5, "seq_len": 31}
PLAIN = ComputeConfig(attention="reference")
QUICKLY = {"xla_cpu_use_fusion_emitters": False}  # half the time to compile
HF_SIZES = {
    "vocab_size": 397,
    "hidden_size": 36,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 52,
    "max_position_embeddings": 33,
    "initializer_range": 0.1,
}
DISTIL_SIZES = {
    "vocab_size": 397,
    "dim": 36,
    "n_layers": 5,
    "n_heads": 3,
    "hidden_dim": 52,
    "max_position_embeddings": 33,
    "initializer_range": 0.1,
}
MODERN_SIZES = {
    "num_hidden_layers": 7,
    "local_attention": 12,
    "pad_token_id": 3,
    "bos_token_id": None,
    "eos_token_id": None,
    "cls_token_id": None,
    "sep_token_id": None,
}
"""A window of 6 in rows of 31."""
HF_KINDS = {
    "bert": ("BertForPreTraining", HF_SIZES),
    "albert_v1": ("AlbertForPreTraining", HF_SIZES | {"embedding_size": 20, "hidden_act": "gelu"}),
    "albert_v2_3_groups": ("AlbertForPreTraining", HF_SIZES | {"embedding_size": 20, "num_hidden_groups": 3}),
    "distilbert": ("DistilBertForMaskedLM", DISTIL_SIZES),
    "roberta": (
        "RobertaForMaskedLM",
        HF_SIZES | {"max_position_embeddings": 35, "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    ),
    "modernbert": ("ModernBertForMaskedLM", HF_SIZES | MODERN_SIZES),
    "nomic": ("NomicBertForMaskedLM", HF_SIZES),
}


# Torch models -----------------------------------------------------------------------------------------------------


def torch_model(class_name, **settings):
    """A randomly initialised model without dropout; LayerNorms and biases are random too."""
    torch, architecture = pytest.importorskip("torch"), getattr(hf(), class_name)
    torch.manual_seed(0)
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if class_name.startswith("Distil"):
        no_dropout = {"dropout": 0.0, "attention_dropout": 0.0}
    if class_name.startswith("Modern"):
        no_dropout = {}
    model = architecture(architecture.config_class(**(no_dropout | settings))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(model.config.initializer_range * torch.randn(parameter.shape))
    return model


def inputs_of(model, batch):
    """A batch as keyword arguments of a torch model, its labels included."""
    torch = pytest.importorskip("torch")
    B, L = batch["tokens"].shape
    real = batch["segments"] > 0
    labels = np.full((B, L), -100)
    rows, slots = np.nonzero(batch["mlm_weights"])
    labels[rows, batch["mlm_positions"][rows, slots]] = batch["mlm_labels"][rows, slots]
    inputs = {
        "input_ids": np.where(real, batch["tokens"], model.config.pad_token_id),
        "attention_mask": real,
        "labels": labels,
    }
    if "ForPreTraining" in type(model).__name__:
        pair = "next_sentence_label" if type(model).__name__.startswith("Bert") else "sentence_order_label"
        inputs[pair] = np.where(batch["pair_weights"] > 0, batch["pair_labels"], -100)
    if not type(model).__name__.startswith(("Distil", "Modern")):
        inputs["token_type_ids"] = batch["token_types"] * (model.config.type_vocab_size > 1)
    return {name: torch.tensor(value.astype(np.int64)) for name, value in inputs.items()}


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICKLY)
def apply(config, params, batch):
    return network.apply(config, PLAIN, params, batch)


def differences(peer, folder, config):
    """The largest differences between a torch model and what is read of it, for a random batch of `config`.

    Absolute of each output and relative of the loss and, to the largest value of the same tensor, of each gradient: the
    batch has padding, token types and rows without a pair label.
    """
    peer.save_pretrained(folder / "model")
    contents = read(folder / "model")
    batch = random_batch(config)
    batch["token_types"] *= contents.config.token_types > 1
    pairs = "pair_head" in contents.config.heads
    terms = pretraining_terms(dataclasses.replace(config.objective, pair=float(pairs)))

    def loss(params, batch):
        outputs = network.apply(contents.config, PLAIN, params, batch)
        totals = objective.total_weights(terms, batch)
        sums = objective.weighted_sums(terms, outputs, batch)
        return objective.total_loss(terms, objective.normalise(sums, totals)), outputs

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICKLY)
    (value, outputs), gradients = compiled(contents.params, batch)

    inputs = inputs_of(peer, batch)
    expected = peer(**inputs)
    expected.loss.backward()
    body = {name: x for name, x in inputs.items() if name in ("input_ids", "attention_mask", "token_type_ids")}
    base = peer.base_model(**body)
    logits = expected.prediction_logits if pairs else expected.logits
    logits = np.take_along_axis(logits.detach().numpy(), batch["mlm_positions"][:, :, None], axis=1)
    real, used = batch["segments"] > 0, batch["mlm_weights"] > 0
    compared = {
        "hidden": (outputs["hidden"][real], base.last_hidden_state.detach().numpy()[real]),
        "mlm_logits": (outputs["mlm_logits"][used], logits[used]),
    }
    if pairs:
        compared["pooled"] = (outputs["pooled"][:, 0], base.pooler_output.detach().numpy())
        compared["pair_logits"] = (outputs["pair_logits"][:, 0], expected[2].detach().numpy())
    found = {name: float(np.abs(ours - theirs).max()) for name, (ours, theirs) in compared.items()}
    found["loss"] = abs(float(value) / expected.loss.item() - 1)

    # Gradients of the torch model take the road of its weights: written as tensors, read as parameters.
    with pytest.importorskip("torch").no_grad():
        for parameter in peer.parameters():
            parameter.copy_(parameter.grad)
    peer.save_pretrained(folder / "gradients")
    theirs = flatten_dict(read(folder / "gradients").params, sep="/")
    relative = {}
    for path, x in flatten_dict(gradients, sep="/").items():
        # The gradient of a key's bias is zero but for rounding: softmax does not see it.
        scale = np.abs(theirs[path.replace("key/bias", "query/bias")]).max()
        relative[path] = float(np.abs(x - theirs[path]).max() / scale)
    return found, relative


# The same numbers as the torch models -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HF_KINDS)
def test_equals_transformers(kind, tmp_path):
    """Hidden states, logits, loss and every gradient, at sizes that no shape has in common with another."""
    class_name, settings = HF_KINDS[kind]
    config = tiny(model={"vocab_size": 397}, data=BATCH)
    found, gradients = differences(torch_model(class_name, **settings), tmp_path, config)
    assert found.pop("loss") <= 1e-6
    assert len(found) == (4 if "ForPreTraining" in class_name else 2) and max(found.values()) <= 1e-5, found
    assert max(gradients.values()) <= 1e-4, max(gradients.items(), key=lambda item: item[1])


@pytest.mark.parametrize(("name", "activation"), [("gelu", "gelu_erf"), ("gelu_new", "gelu_tanh")])
def test_the_two_forms_of_gelu_are_told_apart(name, activation, tmp_path):
    """They differ by less than 5e-4, so only small weights and a tight bound show which one it is."""
    peer = torch_model(
        "BertForPreTraining", **(HF_SIZES | {"hidden_act": name, "initializer_range": 0.02, "num_hidden_layers": 2})
    )
    peer.save_pretrained(tmp_path)
    contents = read(tmp_path)
    assert contents.config.activation == activation
    batch = random_batch(tiny(model={"vocab_size": 397}, data=BATCH))
    logits = peer(**inputs_of(peer, batch)).prediction_logits.detach().numpy()
    logits = np.take_along_axis(logits, batch["mlm_positions"][:, :, None], axis=1)
    used = batch["mlm_weights"] > 0

    def difference(activation):
        config = dataclasses.replace(contents.config, activation=activation)
        return np.abs(apply(config, contents.params, batch)["mlm_logits"] - logits)[used].max()

    (other,) = {"gelu_erf", "gelu_tanh"} - {activation}
    assert difference(activation) <= 3e-7 < 3e-6 < difference(other)


def test_real_weights_give_their_published_logits(tmp_path):
    """BERT-Tiny, fine-tuned on SST-2: what each layer gives, the pooler and the classifier."""
    with pytest.raises(CheckpointError, match=r"embeddings.word_embeddings.weight is missing"):
        read(shared("weights", "bert_tiny_sst2_encoder"))
    _, values, expected = real_classifier(tmp_path / "model")
    contents = read(tmp_path / "model")
    assert contents.fresh == ("mlm_head", "pair_head") and contents.config.heads == ("pooler", "classifier")
    assert contents.config.labels == ("LABEL_0", "LABEL_1")

    places = np.arange(len(values["embedding_output_4"]), dtype=np.int32)[None]
    batch = {"tokens": 0 * places, "positions": places, "segments": 0 * places + 1, "token_types": 0 * places}
    batch["pair_positions"] = np.zeros((1, 1), np.int32)
    computed = jax.jit(functools.partial(network.apply, every_layer=True), static_argnums=(0, 1))
    outputs = computed(contents.config, PLAIN, contents.params, batch)
    for layer in range(2):
        np.testing.assert_allclose(outputs["layers"][layer, 0], values[f"hidden_layer{layer + 1}_4"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(outputs["pooled"][0, 0], values["pooled_4"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(outputs["class_logits"][0, 0], expected, atol=1e-5, rtol=0)


# Out and in again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_bit_for_bit(kind, tmp_path):
    config, params = ours(kind)
    contents = read(write(tmp_path / "model", kind))
    assert contents.family == KINDS[kind][1]
    assert contents.config == config
    assert_same(contents.params, params)
    assert "mlm_head" not in contents.fresh and contents.tokenizer is None


@pytest.mark.parametrize("kind", UNSHARED)
def test_sharing_that_transformers_has_not_is_undone(kind, tmp_path):
    """Each layer has a copy of what it used, and the card says so."""
    config, params = ours(kind)
    contents = read(write(tmp_path / "model", kind))
    assert contents.family == UNSHARED[kind][1] and contents.config.share == "none"
    for layer in range(config.num_layers):
        expected = layer_params(params["encoder"], config, layer)
        assert_same(layer_params(contents.params["encoder"], contents.config, layer), expected)
    assert "each layer has its own copy" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize("kind", [*KINDS, "attention", "ffn_factorised"])
def test_transformers_loads_every_weight_and_computes_the_same(kind, tmp_path):
    config, params = ours(kind)
    pooler, pairs = ("pooler" in config.heads), ("pair_head" in config.heads)
    directory = write(tmp_path / "model", kind)
    name = json.loads((directory / "config.json").read_text())["architectures"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer, report = getattr(hf(), name).from_pretrained(directory, output_loading_info=True)
        base, base_report = hf().AutoModel.from_pretrained(directory, output_loading_info=True)
    # A pooler without a pair head is there for AutoModel; no class with an MLM head alone has a place for it.
    extra = {key for key in stored(directory) if "pooler" in key and pooler and not pairs}
    assert {what: keys for what, keys in report.items() if keys} == ({"unexpected_keys": extra} if extra else {})
    has_pooler = any("pooler" in name for name in base.state_dict())
    assert bool(base_report["missing_keys"]) == (has_pooler and not pooler)
    heads = (
        "cls.",
        "predictions.",
        "sop_classifier.",
        "lm_head.",
        "vocab_",
        "head.",
        "decoder.",
    )  # which AutoModel has not
    assert all(key.startswith(heads) for key in base_report["unexpected_keys"])
    auto = hf().AutoModelForPreTraining if pairs else hf().AutoModelForMaskedLM
    assert type(auto.from_pretrained(directory)) is type(peer)

    loaded = peer.state_dict() | {f"{base.base_model_prefix}.{name}": x for name, x in base.state_dict().items()}
    peer.save_pretrained(tmp_path / "again")  # by the names of files, which those of modules need not be
    again = stored(tmp_path / "again")
    for name, x in stored(directory).items():
        np.testing.assert_array_equal(again[name] if name in again else loaded[name].numpy(), x, err_msg=name)
    theirs = peer.config.to_dict()
    assert config_json.from_json(directory, theirs["model_type"], theirs)[0].activation == config.activation

    batch = random_batch(tiny(data={"batch_size": 2}))
    batch["token_types"] *= config.token_types > 1
    outputs = peer(**inputs_of(peer, batch))
    for row in range(2):
        expected = pretrain_outputs(params, config, batch, row)
        at = batch["mlm_positions"][row][batch["mlm_weights"][row] > 0]
        np.testing.assert_allclose(outputs[1][row].detach().numpy()[at], expected["mlm_logits"], atol=1e-5, rtol=0)
        if pairs:
            np.testing.assert_allclose(outputs[2][row].detach().numpy(), expected["pair_logits"], atol=1e-5, rtol=0)
