"""DNA, SMILES, ids and Japanese, from text to export: what is planted is learnt, and no default spoils the text."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import tokenizers
from corpus.prepared import documents
from directories import hf
from sequences import MOTIF, dna, japanese, smiles
from small import tiny

from bertjax.config.recipe import from_dict, override
from bertjax.tasks.inputs import make_data, make_tokenizer, open_data
from bertjax.tasks.pretrain import pretrain
from bertjax.trained.exchange import export_directory
from bertjax.trained.fill_mask import fill_mask

ROOT = Path(__file__).parents[1]
SMALL = {
    "model": {"num_layers": 2, "hidden_size": 64, "embedding_size": 64, "num_heads": 2, "ffn_size": 128},
    "data": {"batch_size": 16, "max_predictions": 10, "prepare_workers": 1, "loader_threads": 1},
    "run": {"eval_every": 0, "save_every": 0, "eval_rows": 64},
}


def recipe(alphabet, source, **changes):
    """configs/sequences.py, small."""
    spec = importlib.util.spec_from_file_location("sequences_recipe", ROOT / "configs" / "sequences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = from_dict(module.get_config(alphabet))
    fields = {name: dict(values) for name, values in SMALL.items()}
    fields["data"]["source"] = [str(source)]
    for section, values in changes.items():
        fields.setdefault(section, {}).update(values)
    return override(config, **fields)


def trained(config, directory):
    make_tokenizer(config, directory)
    make_data(config, directory)
    assert pretrain(config, directory)
    return open_data(config, directory)


def test_a_planted_motif_is_learnt_from_its_context(tmp_path):
    """In each of the three frames in which 3-mers can read it, and from the letters around: not where these differ."""
    (tmp_path / "dna.txt").write_text("\n".join(dna(2000)) + "\n")
    config = recipe(
        "dna",
        tmp_path / "dna.txt",
        model={"vocab_size": 74, "max_positions": 16},
        data={"kmer": 3, "seq_len": 16, "packing": 1, "mask_rate": 0.2, "max_predictions": 5, "batch_size": 32},
        optim={"lr": 5e-3, "warmup_steps": 30},
        run={"steps": 300},
    )
    trained(config, tmp_path)
    masked, expected, elsewhere = [], [], []
    rng = np.random.default_rng(2)
    for sequence in dna(30, seed=1):
        at = sequence.index(MOTIF)
        for place in range(-(-at // 3) * 3 + 3, at + len(MOTIF) - 5, 3):  # whole 3-mers with another on each side
            masked.append(sequence[:place] + "[MASK]" + sequence[place + 3 :])
            expected.append(sequence[place : place + 3])
            other = "".join(rng.choice(list("ACGT"), len(sequence)))
            elsewhere.append(other[:place] + "[MASK]" + other[place + 3 :])

    found = [filled.choices[0][0][0] for filled in fill_mask(tmp_path, [*masked, *elsewhere], top=1)]
    right, by_chance = np.split(np.array(found) == np.array(expected * 2), 2)
    assert len(masked) > 100
    assert right.mean() > 0.9 and by_chance.mean() < 0.25  # the motif has about 20 different 3-mers


EXPORTED = {"num_layers": 1, "hidden_size": 16, "embedding_size": 16, "ffn_size": 16}


def exported(config, directory):
    """The tokenizer of an export of a model of two steps, and the directory."""
    tokenizer, prepared = trained(config, directory)
    export_directory(config, directory, directory / "hf")
    return tokenizer, prepared, directory / "hf"


def assert_same_ids(tokenizer, directory, texts):
    """In the tokenizers library, and in transformers where it is installed."""
    ids_n, lengths = tokenizer.encode_batch(texts)
    expected = [found.tolist() for found in np.split(ids_n, np.cumsum(lengths)[:-1])]
    fast = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert [found.ids for found in fast.encode_batch_fast(texts, add_special_tokens=False)] == expected
    special = tokenizer.special
    assert fast.encode(texts[0]).ids == [special.cls, *expected[0], special.sep]
    if importlib.util.find_spec("transformers"):
        peer = hf().AutoTokenizer.from_pretrained(directory)
        assert peer(texts, add_special_tokens=False)["input_ids"] == expected
        assert peer(texts[0])["input_ids"] == [special.cls, *expected[0], special.sep]
        assert (peer.pad_token_id, peer.mask_token_id, peer.unk_token_id) == (special.pad, special.mask, special.unk)


def test_smiles_go_from_text_to_export(tmp_path):
    texts = list(smiles())
    (tmp_path / "x.smi").write_text("\n".join(texts) + "\n")
    sizes = {"max_positions": 64}
    data = {"seq_len": 64, "max_predictions": 10, "packing": 2}
    run = {"steps": 2}
    config = recipe("smiles", tmp_path / "x.smi", model=EXPORTED | sizes, data=data, run=run, optim={"warmup_steps": 1})
    tokenizer, prepared, directory = exported(config, tmp_path)
    assert_same_ids(tokenizer, directory, [*texts, "C[Fe]C unknown", "c1ccccc1\tC", ""])
    # Each molecule is a document, read as it was written, without its name.
    stored = {tokenizer.decode(ids) for split in (prepared.train, prepared.validation) for ids in documents(split)}
    assert stored == {text.split()[0] for text in texts}
    assert not prepared.token_counts[tokenizer.special.unk] and tokenizer.vocab_size == 24


def test_ids_go_from_text_to_export(tmp_path):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 40, rng.integers(3, 20)).tolist() for _ in range(100)] + [[39, 0]]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"item": sequence}) + "\n" for sequence in sequences))
    data = {"seq_len": 32, "max_predictions": 5, "packing": 2, "text_field": "item"}
    sizes = {"vocab_size": 45, "max_positions": 32}
    run = {"steps": 2}
    config = recipe("ids", tmp_path / "x.jsonl", model=EXPORTED | sizes, data=data, run=run, optim={"warmup_steps": 1})
    tokenizer, prepared, directory = exported(config, tmp_path)
    stored = [ids for split in (prepared.train, prepared.validation) for ids in documents(split)]
    assert sorted(stored) == sorted(sequences)
    assert_same_ids(tokenizer, directory, [" ".join(map(str, sequence)) for sequence in sequences])
    assert json.loads((directory / "config.json").read_text())["pad_token_id"] == 40


def test_japanese_goes_from_text_to_export(tmp_path, capsys):
    texts = list(japanese())
    (tmp_path / "x.txt").write_text("\n\n".join(texts) + "\n")
    data = {"source": [str(tmp_path / "x.txt")], "examples": "sop", "seq_len": 32, "max_predictions": 5}
    data |= {"case": "cased", "prepare_workers": 1, "masking": "whole_word", "holdout": 0.1}
    sizes = EXPORTED | {"vocab_size": 75, "num_heads": 2, "max_positions": 32}
    run = {"steps": 2, "eval_every": 0, "save_every": 0, "eval_rows": 8}
    config = tiny(model=sizes, data=data, run=run, optim={"warmup_steps": 1})
    tokenizer, prepared, directory = exported(config, tmp_path)
    assert "data.case" not in capsys.readouterr().err
    assert set(np.diff(prepared.train.document_offsets)) == {3}  # sentences, so that pairs have labels
    read = {tokenizer.decode(ids) for split in (prepared.train, prepared.validation) for ids in documents(split)}
    assert {text.replace(" ", "").replace("！", "!") for text in read} == {text.replace("！", "!") for text in texts}
    assert_same_ids(tokenizer, directory, [*texts, "ガラスが割れた。"])
