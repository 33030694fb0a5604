"""`bertjax.bench.step`: a step is timed, and what cannot train is refused in one line."""

import directories
import pytest
from small import tiny

from bertjax.bench.step import bench, table
from bertjax.config.recipe import override
from bertjax.errors import ConfigError


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
    with pytest.raises(ConfigError, match=r"model\.vocab_size = 300: "):
        bench(override(config, model={"vocab_size": 300}), peer="", repeats=1)


def test_what_cannot_train_here_is_refused_where_it_is_asked():
    """The mistake is found in the process that runs the step, and told by the one that was called."""
    with pytest.raises(ConfigError, match=r"mesh = data 0, fsdp 1, tensor 3: must multiply to"):
        bench(tiny(mesh={"tensor": 3}), peer="", repeats=1)


def test_in_turn_with_torch():
    pytest.importorskip("transformers", reason="the [hf] extra is not installed")
    result = bench(tiny(), peer="torch", repeats=2)
    assert result["ratio"] > 0 and set(result) == {"bertjax", "torch", "ratio"}


def test_a_table_has_a_line_for_each_side_and_the_ratio():
    times = {"seconds": 1.5, "fastest": 1.0, "slowest": 2.0, "tokens_per_second": 4096.0}
    (line,) = table({"bertjax": times}).splitlines()
    assert line.startswith("bertjax") and "tokens_per_second 4,096.000" in line
    ours, theirs, ratio = table({"bertjax": times, "torch": times, "ratio": 1.25}).splitlines()
    assert ours == line and theirs.startswith("torch") and "1.250 times as fast" in ratio
