"""`bertjax.bench.step`: both sides do the same work, and wrong pairings are refused."""

import directories
import pytest
from small import random_batch, tiny

from bertjax.bench.step import _check_peer, bench, synthetic
from bertjax.config.recipe import override
from bertjax.errors import ConfigError


def test_synthetic_batches_keep_the_contract():
    config = tiny()
    rows = synthetic(config)
    assert rows.keys() == random_batch(config).keys()
    assert (rows["mlm_positions"][:, 1:] > rows["mlm_positions"][:, :-1]).all()


def test_a_step_is_timed():
    result = bench(tiny(mesh={"data": 0}), peer="", repeats=3)["bertjax"]
    assert 0 < result["fastest"] <= result["seconds"] <= result["slowest"]
    assert result["tokens_per_second"] == pytest.approx(8 * 32 / result["seconds"])


def test_a_step_with_a_teacher_is_timed(tmp_path):
    """The teacher needs no tokenizer: the batches are random."""
    path = directories.write(tmp_path / "teacher")
    config = tiny(
        model={"num_layers": 2}, teacher={"path": str(path), "tokens": "masked"}, objective={"soft": 1.0, "cosine": 1.0}
    )
    assert bench(config, peer="", repeats=1)["bertjax"]["seconds"] > 0


def test_in_turn_with_torch():
    pytest.importorskip("transformers", reason="the [hf] extra is not installed")
    result = bench(tiny(), peer="torch", repeats=2)
    assert result["ratio"] > 0 and set(result) == {"bertjax", "torch", "ratio"}


@pytest.mark.parametrize(
    "changes", [{"model": {"share": "all"}}, {"optim": {"name": "lamb"}}, {"model": {"dtype": "bfloat16"}}]
)
def test_unequal_work_is_refused(changes):
    with pytest.raises(ConfigError, match="--peer=torch"):
        _check_peer(override(tiny(), **changes))
