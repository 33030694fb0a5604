"""`bertjax.trained.warmstart`: a model in other shapes is the same function where it can be."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from bpe import train_bpe
from models import KINDS
from small import random_batch, tiny

from bertjax.data import tokenizer
from bertjax.errors import ConfigError
from bertjax.model import network
from bertjax.model.heads import HEADS
from bertjax.trained import warmstart
from bertjax.trained.load import Trained
from bertjax.vocabulary.unigram import train_sentencepiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIAL, *(f"w{i}" for i in range(200)), *(f"##x{i}" for i in range(195))]
QUIET = {"dropout": 0.0, "attention_dropout": 0.0}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A vocabulary of 400 pieces, and the same pieces in another order with ten new ones in place of ten."""
    folder = tmp_path_factory.mktemp("vocabulary")
    shuffled = [*np.random.default_rng(0).permutation(PIECES[:-10]).tolist(), *(f"new{i}" for i in range(10))]
    for name, pieces in (("old.txt", PIECES), ("new.txt", shuffled)):
        (folder / name).write_text("\n".join(pieces) + "\n")
    return {name: tokenizer.load(folder / name, lower_case=True) for name in ("old.txt", "new.txt")}


def draw(config, seed):
    """Parameters none of which is what a new model has: biases and scales are random too."""
    leaves, tree = jax.tree.flatten(network.abstract_params(config.model))
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype) for leaf in leaves])


def started(old, new, words, *, to="old.txt", heads=tuple(HEADS), **run):
    """(the old parameters, those of the new run, the line that tells)"""
    new = replace(new, run=replace(new.run, init_from="old", **run))
    source = Trained(old.model, old.compute, draw(old, 1), frozenset(heads), words["old.txt"])
    warmstart.check(source, new)
    params, told = warmstart.adapt(source, new, words[to], draw(new, 2))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), params)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), network.abstract_params(new.model))
    return source.params, params, told


def outputs(config, params, batch):
    return jax.jit(network.apply, static_argnums=(0, 1))(config.model, config.compute, params, batch)


def assert_same_function(old, old_params, new, new_params, batch):
    one, other = outputs(old, old_params, batch), outputs(new, new_params, batch)
    assert set(other) <= set(one)
    for name, value in other.items():
        np.testing.assert_allclose(value, one[name], atol=2e-5, err_msg=name)


def test_the_same_shapes_are_the_same_bits(words):
    old = tiny(model=QUIET)
    before, after, told = started(old, old, words)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert told == "layers 0, 1, 2, 3 of 4, 400 of 400 pieces"


@pytest.mark.parametrize(("part", "num_groups"), [("all", 1), ("all", 2), ("attention", 2), ("ffn", 1)])
def test_shared_layers_become_layers_of_their_own(words, part, num_groups):
    """ALBERT un-shared into BERT."""
    old = tiny(model=QUIET | {"share": part, "num_groups": num_groups, "embedding_size": 16})
    new = tiny(model=QUIET | {"embedding_size": 16})
    before, after, _ = started(old, new, words)
    assert_same_function(old, before, new, after, random_batch(old))


def test_sharing_may_stay_become_less_or_be_of_fewer_layers(words):
    old = tiny(model=QUIET | {"share": "all", "num_groups": 2})
    for changes in ({"share": "attention", "num_groups": 2}, {"share": "all", "num_groups": 4}):
        new = tiny(model=QUIET | changes)
        before, after, _ = started(old, new, words)
        assert_same_function(old, before, new, after, random_batch(old))
    half = tiny(model=QUIET | {"share": "all", "num_groups": 2, "num_layers": 2})
    before, after, _ = started(old, half, words)
    jax.tree.map(np.testing.assert_array_equal, before["encoder"], after["encoder"])


def test_fewer_layers_are_those_of_the_rule(words):
    old = tiny(model=QUIET)
    new = tiny(model=QUIET | {"num_layers": 2})
    for chosen, layers in (((), [0, 3]), ((0, 1), [0, 1]), ((3, 1), [3, 1])):
        before, after, told = started(old, new, words, init_layers=chosen)
        for old_leaf, new_leaf in zip(
            jax.tree.leaves(before["encoder"]["groups"]), jax.tree.leaves(after["encoder"]["groups"]), strict=True
        ):
            np.testing.assert_array_equal(old_leaf[layers], new_leaf)
        assert told.startswith(f"layers {layers[0]}, {layers[1]} of 4")
    assert warmstart.layer_map((), 6, 12) == [0, 2, 4, 7, 9, 11]  # DistilBERT's
    assert warmstart.layer_map((), 1, 12) == [0]


def test_a_first_layer_without_a_norm_stays_the_first(words):
    """It has no parameters for another place, and no other layer has its shape."""
    modern = QUIET | {name: KINDS["albert_modern"][name] for name in KINDS["albert_modern"]}
    old = tiny(model=modern)
    alone = tiny(model=modern | {"share": "none", "num_groups": 1, "rotary_base": 500.0})
    before, after, told = started(old, alone, words)
    assert told.endswith("model.rotary_base 500 instead of 10000")
    alone = replace(alone, model=replace(alone.model, rotary_base=10_000.0))
    assert_same_function(old, before, alone, after, random_batch(old))

    fewer = tiny(model=modern | {"share": "none", "num_groups": 1, "num_layers": 3})
    before, after, _ = started(alone, fewer, words, init_layers=(0, 1, 4))
    one, other = (params["encoder"] for params in (before, after))
    jax.tree.map(np.testing.assert_array_equal, one["first"], other["first"])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[np.array([0, 3])], y), one["groups"], other["groups"])
    for wrong in ((1, 2, 3), (0, 0, 1)):
        with pytest.raises(ConfigError, match=r"run.init_layers = .*comes from layer 0"):
            started(alone, fewer, words, init_layers=wrong)


@pytest.mark.parametrize(
    ("layers", "count", "named"),
    [
        ((0, 1), 3, r"run\.init_layers = \(0, 1\)"),
        ((0, 1, 4), 3, r"run\.init_layers = \(0, 1, 4\)"),
        ((), 5, r"model\.num_layers = 5"),
        ((0, 1, 2, 3, 3), 5, r"model\.num_layers = 5"),
    ],
)
def test_impossible_layer_maps_are_refused(layers, count, named):
    with pytest.raises(ConfigError, match=named):
        warmstart.layer_map(layers, count, 4)


def test_no_token_types_keep_the_function_of_type_0(words):
    """BERT to DistilBERT's architecture."""
    old = tiny(model=QUIET)
    none = {"token_types": 0, "heads": ("mlm_head",)}
    new = tiny(model=QUIET | none, objective={"pair": 0.0}, data={"examples": "doc_sentences"})
    batch = random_batch(old)
    batch["token_types"][:] = 0
    before, after, _ = started(old, new, words)
    assert_same_function(old, before, new, after, batch)
    back, after, told = started(new, old, words, heads=["mlm_head"])  # types from nothing: zeros
    assert not after["encoder"]["embeddings"]["token_type"].any()
    assert told.endswith("; new: pair_head, pooler")
    np.testing.assert_array_equal(back["mlm_head"]["bias"], after["mlm_head"]["bias"])
    np.testing.assert_array_equal(after["pooler"]["kernel"], draw(old, 2)["pooler"]["kernel"])


def test_one_token_type_becomes_both(words):
    old = tiny(model=QUIET | {"token_types": 1}, data={"examples": "full_sentences"}, objective={"pair": 0.0})
    before, after, _ = started(old, tiny(model=QUIET), words)
    (row,) = before["encoder"]["embeddings"]["token_type"]
    np.testing.assert_array_equal(after["encoder"]["embeddings"]["token_type"], [row, row])


def test_positions_are_cut_or_repeated(words):
    old = tiny(model=QUIET)
    for rows in (10, 75):
        data = {"seq_len": 10, "max_predictions": 2}
        before, after, _ = started(old, tiny(model=QUIET | {"max_positions": rows}, data=data), words)
        table = before["encoder"]["embeddings"]["position"]
        np.testing.assert_array_equal(after["encoder"]["embeddings"]["position"], table[np.arange(rows) % 32])


def test_words_follow_their_spelling(words):
    old, new = tiny(model=QUIET), tiny(model=QUIET | {"vocab_size": 410})
    before, after, told = started(old, new, words, to="new.txt")
    fresh = draw(new, 2)
    assert told.split(", ")[-1] == "390 of 400 pieces"
    ids = {piece: i for i, piece in enumerate(words["old.txt"].pieces)}
    for values in (lambda p: p["encoder"]["embeddings"]["word"], lambda p: p["mlm_head"]["bias"]):
        for i, piece in enumerate(words["new.txt"].pieces):
            wanted = values(before)[ids[piece]] if piece in ids else values(fresh)[i]
            np.testing.assert_array_equal(values(after)[i], wanted)
        np.testing.assert_array_equal(values(after)[400:], values(fresh)[400:])  # rows of no piece


def test_a_new_word_begins_as_the_mean_of_its_parts(tmp_path):
    """Against a loop: the longest piece that fits, again and again. Parts that are unknown do not count."""
    pieces = [*SPECIAL, "aspirin", "blood", "##thin", "##ner", "##ly", "thin", ","]
    added = ["bloodthinner", "aspirin,thinly", "qqq", "thin,q", "##thinly"]
    for name, found in (("old.txt", pieces), ("new.txt", [*pieces, *added])):
        (tmp_path / name).write_text("\n".join(found) + "\n")
    made = {name: tokenizer.load(tmp_path / name, lower_case=True) for name in ("old.txt", "new.txt")}
    sizes = {"vocab_size": len(pieces)}, {"vocab_size": len(pieces) + len(added) + 1}
    old, new = (tiny(model=QUIET | size) for size in sizes)
    before, after, told = started(old, new, made, to="new.txt")
    assert told.split(", ")[-2:] == ["12 of 17 pieces", "4 more from the mean of their parts"]
    parts = [["blood", "##thin", "##ner"], ["aspirin", ",", "thin", "##ly"], [], ["thin", ","], ["thin", "##ly"]]
    fresh = draw(new, 2)
    for values in (lambda p: p["encoder"]["embeddings"]["word"], lambda p: p["mlm_head"]["bias"]):
        np.testing.assert_array_equal(values(after)[:12], values(before))
        for index, cut in enumerate(parts, start=12):
            total = sum(values(before)[pieces.index(piece)].astype(np.float64) for piece in cut)
            np.testing.assert_allclose(
                values(after)[index], total / len(cut) if cut else values(fresh)[index], atol=1e-6
            )
        np.testing.assert_array_equal(values(after)[17:], values(fresh)[17:])


def test_the_parts_of_a_word_are_those_of_a_word_in_running_text(tmp_path):
    """In byte-level BPE a word begins with its space."""
    old = tokenizer.load(train_bpe(tmp_path / "tokenizer.json"), lower_case=True)
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, "king", "kings"]) + "\n")
    new = tokenizer.load(tmp_path / "vocab.txt", lower_case=True)
    to_v, _ = warmstart.same_pieces(old, new, 0)
    (kings,) = warmstart.parts_of(old, new, to_v).values()
    assert [old.pieces[i] for i in kings] == ["Ġking", "s"]


def test_spellings_meet_across_kinds_of_tokenizers(tmp_path):
    """ "##ing" of WordPiece is "ing" of SentencePiece, whose "\u2581the" is "the" there."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*SPECIAL, *letters, *(f"##{c}" for c in letters), "lazily", "##ing"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    texts = ["the thing is the singing of the king", "the ring of the bells", "the quick brown fox jumps lazily"] * 9
    train_sentencepiece(texts, tmp_path / "spiece.model", vocab_size=42, lower_case=True)
    old, new = (tokenizer.load(tmp_path / name, lower_case=True) for name in ("vocab.txt", "spiece.model"))
    to_v, from_v = warmstart.same_pieces(old, new, 0)
    pairs = {new.pieces[i]: old.pieces[j] for i, j in zip(to_v, from_v, strict=True)}
    specials = {"[CLS]": "[CLS]", "[SEP]": "[SEP]", "[MASK]": "[MASK]", "<pad>": "[PAD]", "<unk>": "[UNK]"}
    assert specials.items() <= pairs.items()
    ordinary = {a: b for a, b in pairs.items() if a not in specials}
    assert ordinary["\u2581lazily"] == "lazily" and ordinary["ing"] == "##ing" and ordinary["z"] == "##z"
    assert all(a == ("\u2581" + b if not b.startswith("##") else b[2:]) for a, b in ordinary.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 8}, "model.num_heads = 8: run.init_from = 'old' has 4"),
        ({"ffn_size": 32}, "model.ffn_size = 32"),
        ({"embedding_size": 16}, "model.embedding_size = 16"),
        ({"activation": "relu"}, "model.activation = 'relu'"),
        ({"num_layers": 5}, "model.num_layers = 5: run.init_from has 4"),
        ({"share": "all"}, "model.share = 'all': run.init_from = 'old' has different attention weights"),
        ({"share": "ffn", "num_groups": 2}, "has different ffn weights in layers that would share them"),
    ],
)
def test_what_does_not_fit_is_refused(words, changes, message):
    with pytest.raises(ConfigError, match=message):
        started(tiny(model=QUIET), tiny(model=QUIET | changes), words)


def test_all_that_does_not_fit_is_in_one_report(words):
    new = tiny(model={"num_heads": 8, "ffn_size": 32, "share": "ffn"})
    source = Trained(tiny().model, tiny().compute, None, frozenset(), None)
    with pytest.raises(ConfigError) as error:
        warmstart.check(source, new)
    assert len(str(error.value).splitlines()) == 4


# Fine-tuning --------------------------------------------------------------------------------------------------------

MODERN = QUIET | KINDS["modernbert"] | {"heads": ("mlm_head",)}
ASKED = {"dropout": 0.2, "attention_dropout": 0.3, "classifier_dropout": 0.4, "labels": ("yes", "no")}


def task_of(kind, model=None, **fields):
    """The config of a run that fine-tunes."""
    config = tiny(objective={"pair": 0.0})
    task = replace(config.task, kind=kind, **fields)
    return replace(config, task=task, model=replace(config.model, **(ASKED | (model or {}))))


def trained(words, changes, heads=None, seed=1):
    model = replace(tiny().model, **changes)
    config = replace(tiny(), model=model)
    return Trained(model, config.compute, draw(config, seed), frozenset(heads or model.heads), words["old.txt"])


def fine_tuned(source, config, words):
    """(the model, its parameters, fresh ones, the line that tells)"""
    config = replace(config, model=warmstart.finetuned(source, config), run=replace(config.run, init_from="old"))
    warmstart.check(source, config)
    fresh = draw(config, 2)
    params, told = warmstart.adapt(source, config, words["old.txt"], fresh)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), params)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), network.abstract_params(config.model))
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], source.params["encoder"])
    return config.model, params, fresh, told


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({}, "classify", {"pooler_activation": "tanh"}),
        ({"share": "all", "embedding_size": 16}, "regress", {"labels": ("yes", "no")}),
        ({"token_types": 0, "heads": ("mlm_head",)}, "choice", {"pooler_activation": "relu", "labels": ()}),
        ({"token_types": 1, "heads": ("mlm_head",)}, "classify", {"pooler_activation": "tanh"}),
        (KINDS["nomic"] | {"heads": ("mlm_head",)}, "tag", {"token_transform": False}),
        (MODERN, "classify", {"pooler_activation": "gelu_erf", "pooler_norm": True, "token_transform": False}),
        (MODERN | {"pooling": "mean"}, "classify", {"pooler_norm": True, "pooling": "mean"}),
        (MODERN, "span", {"pooler_activation": "gelu_erf", "pooler_norm": True, "token_transform": True, "labels": ()}),
        (KINDS["neobert"] | {"heads": ("mlm_head",)}, "classify", {"pooler_activation": "silu", "pooler_norm": True}),
    ],
)
def test_the_model_of_a_task_is_the_source_with_its_head(words, changes, kind, expected):
    source = trained(words, changes)
    model = warmstart.finetuned(source, task_of(kind))
    heads = {"tag": ("tagger",), "span": ("span_head",)}.get(kind, ("pooler", "classifier"))
    expected = (
        {"heads": heads, "labels": ASKED["labels"]} | {name: ASKED[name] for name in ASKED if "drop" in name} | expected
    )
    assert {name: getattr(model, name) for name in expected} == expected
    of_heads = {*expected, "pooling", "pooler_activation", "pooler_norm", "token_transform"}
    assert all(getattr(model, n) == getattr(source.config, n) for n in vars(model) if n not in of_heads)
    again = warmstart.finetuned(None, task_of(kind, {n: x for n, x in changes.items() if n != "heads"}))
    assert (again.heads, again.pooler_norm) == (model.heads, model.pooler_norm)


def test_what_the_run_asks_for_goes_before_the_family(words):
    """A mean is asked for; a number has the name of its column; a pooler that was trained stays what it is."""
    assert warmstart.finetuned(trained(words, {}), task_of("classify", {"pooling": "mean"})).pooling == "mean"
    assert warmstart.finetuned(trained(words, {}), task_of("regress", {"labels": ()}, label="score")).labels == (
        "score",
    )
    odd = {"heads": ("mlm_head", "pooler"), "pooler_activation": "silu"}
    assert warmstart.finetuned(trained(words, odd), task_of("classify")).pooler_activation == "silu"
    untrained = warmstart.finetuned(trained(words, odd, heads=["mlm_head"]), task_of("classify"))
    assert untrained.pooler_activation == "tanh"


def test_a_classifier_begins_on_the_pooler_of_pretraining(words):
    source = trained(words, QUIET)
    model, params, fresh, told = fine_tuned(source, task_of("classify"), words)
    same(params["pooler"], source.params["pooler"])
    same(params["classifier"], fresh["classifier"])
    assert told == "layers 0, 1, 2, 3 of 4, 400 of 400 pieces; new: classifier"
    assert set(params) == {"encoder", "pooler", "classifier"}
    plain = trained(words, QUIET | {"heads": ("mlm_head",)})  # of an MLM head it takes nothing: that is no pooler
    _, params, fresh, told = fine_tuned(plain, task_of("choice"), words)
    same(params["pooler"], fresh["pooler"])
    assert told.endswith("; new: classifier, pooler")


@pytest.mark.parametrize(
    ("kind", "place"), [("classify", "pooler"), ("tag", "tagger/transform"), ("span", "span_head/transform")]
)
def test_the_transform_of_an_mlm_head_becomes_that_of_a_modern_head(words, kind, place):
    source = trained(words, MODERN)
    _, params, fresh, told = fine_tuned(source, task_of(kind), words)
    head, _, inner = place.partition("/")
    transform = params[head][inner] if inner else params[head]
    same(transform["kernel"], source.params["mlm_head"]["dense"]["kernel"])
    same(transform["norm"], source.params["mlm_head"]["norm"])
    last = "classifier" if kind == "classify" else head
    same(params[last]["dense"], fresh[last]["dense"])
    assert told.endswith(f"pieces; {place} from its mlm_head; new: {last}")


def test_a_transform_of_another_form_is_not_taken(words):
    """Of another activation, none, or another size; from a pooler where there is no MLM head."""
    for changes in ({"pooler_activation": "relu"}, {"mlm_transform": False}, {"embedding_size": 16}):
        source = trained(words, MODERN | {name: x for name, x in changes.items() if name != "pooler_activation"})
        config = task_of("classify")
        model = replace(warmstart.finetuned(source, config), **changes)
        config = replace(config, model=model)
        fresh = draw(config, 2)
        params, told = warmstart.adapt(source, config, words["old.txt"], fresh)
        same(params["pooler"], fresh["pooler"])
        assert told.endswith("; new: classifier, pooler")
    classifies = warmstart.finetuned(trained(words, MODERN), task_of("classify"))
    source = trained(words, vars(classifies) | QUIET)
    _, params, _, told = fine_tuned(source, task_of("tag"), words)
    same(params["tagger"]["transform"], source.params["pooler"])
    assert "; tagger/transform from its pooler; new: tagger" in told


def test_a_head_of_the_same_labels_goes_on_and_of_others_begins_anew(words):
    """As RTE from MNLI: the pooler goes on, the classifier where it tells the same apart, in whatever order."""
    mnli = warmstart.finetuned(trained(words, QUIET), task_of("classify", {"labels": ("no", "perhaps", "yes")}))
    source = trained(words, vars(mnli) | QUIET)
    for labels, kept in (
        (("no", "perhaps", "yes"), [0, 1, 2]),
        (("yes", "no", "perhaps"), [2, 0, 1]),
        (("no", "yes"), None),
    ):
        _, params, fresh, told = fine_tuned(source, task_of("classify", {"labels": labels}), words)
        same(params["pooler"], source.params["pooler"])
        for leaf, x in source.params["classifier"]["dense"].items():
            expected = fresh["classifier"]["dense"][leaf] if kept is None else x[..., kept]
            np.testing.assert_array_equal(params["classifier"]["dense"][leaf], expected)
        assert told.endswith("; new: classifier, as the labels are others") == (kept is None)
    _, params, fresh, told = fine_tuned(source, task_of("tag"), words)
    same(params["tagger"], fresh["tagger"])
    assert told.endswith("; new: tagger")


def test_answers_and_tags_go_on(words):
    tagger = warmstart.finetuned(trained(words, MODERN), task_of("tag", {"labels": ("O", "B-X")}))
    source = trained(words, vars(tagger) | QUIET)
    _, params, fresh, told = fine_tuned(source, task_of("tag", {"labels": ("B-Y", "O")}), words)
    same(params["tagger"]["transform"], source.params["tagger"]["transform"])
    same(params["tagger"]["dense"], fresh["tagger"]["dense"])
    assert told.endswith("; new: tagger, as the labels are others")
    answers = warmstart.finetuned(trained(words, MODERN), task_of("span"))
    source = trained(words, vars(answers) | QUIET)
    _, params, _, told = fine_tuned(source, task_of("span"), words)
    same(params, source.params)
    assert "new" not in told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooler_activation": "relu"}, "model.pooler_activation = 'relu': run.init_from = 'old' has 'tanh'"),
        ({"pooler_norm": True}, "model.pooler_norm = True: run.init_from = 'old' has False"),
    ],
)
def test_a_pooler_of_another_function_is_refused(words, changes, message):
    with pytest.raises(ConfigError, match=message):
        started(tiny(model=QUIET), tiny(model=QUIET | changes), words)
    started(tiny(model=QUIET), tiny(model=QUIET | changes), words, heads=["mlm_head"])  # begins anew


def test_another_pooling_is_told(words):
    _, _, told = started(tiny(model=QUIET), tiny(model=QUIET | {"pooling": "mean"}), words)
    assert told.endswith("model.pooling mean instead of cls")
