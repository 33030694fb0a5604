"""`bertjax.bench.step`: a step is timed, and what cannot train is refused in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import directories
import pytest
from small import tiny

from bertjax.bench import step, torch_peer
from bertjax.bench.step import bench, real_rows, table
from bertjax.bench.turns import Side, Window
from bertjax.cli.main import main
from bertjax.data import dataset
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import ConfigError

ROOT = Path(__file__).parents[2]
FIGURES = {"real_tokens_per_second", "slot_tokens_per_second", "mfu", "step_seconds", "peak_bytes", "compile_seconds"}


ABSENT = ("grain", "array_record", "tensorflow_datasets", "tokenizers", "sentencepiece", "matplotlib", "torch")


def test_a_step_is_timed_by_the_command_where_nothing_reads_data(tmp_path):
    """On a machine with little more than jax, flax, optax and ml-collections."""
    for name in ABSENT:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name}', name='{name}')\n")
    sizes = "vocab_size=400 num_layers=1 hidden_size=32 embedding_size=32 num_heads=2 ffn_size=32 max_positions=32"
    flags = [f"--config.model.{size}" for size in sizes.split()]
    flags += [f"--config.data.{x}" for x in ("seq_len=32", "batch_size=8", "max_predictions=5")]
    command = [sys.executable, "-m", "bertjax", "bench", "train", "--config=bert:tiny", "--windows=2", "--json", *flags]
    # No flags of XLA: one device compiles sooner.
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [*command, "--config.run.peak_tflops=0.1"], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    names = {"flops_per_token", "flops_per_token_by_xla", "recompiles", "device", "versions"}
    assert set(result) == FIGURES | names and result["recompiles"] == 0
    took = result["step_seconds"]
    assert result["compile_seconds"]["cold"] > result["compile_seconds"]["cached"] > 0 and result["peak_bytes"] > 1e8
    assert 0 < took["least"] <= took["median"] <= took["greatest"]
    assert result["real_tokens_per_second"] == result["slot_tokens_per_second"]
    assert result["real_tokens_per_second"] == pytest.approx(8 * 32 / took["median"], rel=0.2)
    assert result["mfu"] == pytest.approx(result["real_tokens_per_second"] * result["flops_per_token"] / 0.1e12)


def test_what_cannot_train_here_is_refused_where_it_is_asked(tmp_path):
    """The mistake is found in the process that runs the step, and told by the one that was called."""
    with pytest.raises(ConfigError, match=r"mesh = data 0, fsdp 1, tensor 3: must multiply to"):
        bench(tiny(mesh={"tensor": 3}), windows=1)
    path = directories.write(tmp_path / "teacher")
    config = tiny(teacher={"path": str(path)}, objective={"soft": 1.0}, model={"vocab_size": 300})
    with pytest.raises(ConfigError, match=r"model\.vocab_size = 300: "):
        bench(config, windows=1)


def test_the_fastest_peer_is_the_one_to_compare_with(monkeypatch):
    """By real tokens: what the peer does with padding counts for nothing."""
    facts = {"flops_per_token": 2e9, "flops_per_token_by_xla": None, "peak": 1e13, "peak_bytes": 10**9}
    facts |= {"compile_seconds": {"cold": 2.0, "cached": 1.0}, "device": "a device", "versions": {"jax": "1"}}
    sides = {
        "bertjax": Side([Window(1.0, 2, 1000, 1000)] * 2, facts | {"recompiles": 0}),
        "hf:eager": Side([Window(1.0, 1, 400, 2000)] * 2, {"peak_bytes": 3 * 10**9}),
        "hf:sdpa": Side([Window(1.0, 1, 500, 900), Window(2.0, 1, 500, 900)], {"peak_bytes": 2 * 10**9}),
    }
    monkeypatch.setattr(step, "in_turn", lambda makes, windows: {name: sides[name] for name in makes})
    monkeypatch.setattr(torch_peer, "check_step", lambda config, vs: torch_peer.NAMES[1:3])
    result = bench(tiny(), vs="hf")
    assert (
        result["peer"]["name"] == "hf:eager"
        and result["ratio"] == 2.5
        and set(result["peers"]) == set(sides) - {"bertjax"}
    )
    assert result["mfu"] == 0.2 and result["peer"]["mfu"] == pytest.approx(0.08)
    assert result["step_seconds"]["median"] == 0.5 and result["peers"]["hf:sdpa"]["step_seconds"]["spread"] == 1 / 1.5
    lines = table(result).splitlines()
    assert lines[0] == "a device; jax 1" and lines[-1] == "bertjax is 2.500 times as fast as hf:eager by real tokens"
    assert lines[4].split() == ["bertjax", "0.5", "0.0%", "1,000", "1,000", "20.0%", "1.00", "GB"]
    assert "by XLA" not in lines[1] and "by XLA's count" in table(result | {"flops_per_token_by_xla": 2.1e9})


def test_real_rows_are_those_of_a_run(inputs):
    config = tiny(data=inputs)
    tokenizer = load_tokenizer(inputs["tokenizer"], lower_case=True)
    rows = real_rows(config, dataset.load(inputs["prepared"]), tokenizer)
    assert len(rows) == 8 and all(one["tokens"].shape == (8, 32) for one in rows)
    assert len({one["tokens"].tobytes() for one in rows}) == 8 and any((one["segments"] == 0).any() for one in rows)


def test_the_rows_of_a_run_are_timed_and_of_a_task_random_ones(monkeypatch, tmp_path, capsys):
    given = []
    monkeypatch.setattr(step, "bench", lambda config, **more: given.append(more["rows"]) or {})
    monkeypatch.setattr(step, "real_rows", lambda config, prepared, tokenizer: [prepared, tokenizer])
    monkeypatch.setattr("bertjax.tasks.inputs.open_data", lambda config, workdir: ("tokenizer", workdir))
    for recipe, rows in (("bert:tiny", [tmp_path, "tokenizer"]), ("finetune/glue:sst2,small", None)):
        with pytest.raises(SystemExit) as end:
            main(["bench", "train", f"--config={recipe}", f"--workdir={tmp_path}", "--json"])
        assert not end.value.code and given.pop() == rows
    assert "task.kind = classify: is timed on full rows of random tokens" in capsys.readouterr().err


def test_in_turn_with_torch():
    pytest.importorskip("transformers", reason="the [hf] extra is not installed")
    result = bench(tiny(), vs="hf:sdpa", windows=2)
    assert result["ratio"] > 0 and set(result["peer"]) == (FIGURES | {"name", "versions"})
    assert result["peer"]["real_tokens_per_second"] > 0 and "torch" in result["peer"]["versions"]
