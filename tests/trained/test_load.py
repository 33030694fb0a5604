"""`bertjax.trained.load`: a model is the same from a Hugging Face directory and from a work directory."""

import pytest
from directories import KINDS, assert_same, model_of, ours, write

from bertjax.errors import CheckpointError
from bertjax.trained import load as pretrained
from bertjax.trained.exchange import import_directory


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("roberta")])
def test_both_kinds_of_directory_give_the_same_model(kind, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]) + "\n")
    directory = write(tmp_path / "hf", kind, tokenizer=tmp_path / "vocab.txt")
    import_directory(directory, tmp_path / "run")
    model = model_of(kind)
    heads = {"mlm_head"} | {head for head in ("pooler", "pair_head") if getattr(model, head)}
    both = [pretrained.load(path) for path in (directory, tmp_path / "run")]
    assert both[0].model == both[1].model
    for found in both:
        assert found.heads == heads
        assert_same(found.params, ours(kind)[1])
        assert found.tokenizer.pieces[-2:] == ["a", "b"]


def test_a_model_without_a_tokenizer_is_still_a_model(tmp_path):
    found = pretrained.load(write(tmp_path / "hf"))
    assert found.tokenizer is None and found.heads


def test_another_directory_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="neither a work directory with checkpoints nor a Hugging Face"):
        pretrained.load(tmp_path)
