"""The loader: threads, processes, hosts and restarts change nothing, and what it started ends with it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data.damage import flip
from data.rows import DATA, EXAMPLES, PREPARED, TOKENIZER, N, assert_same, config, packed_keys, rows_of, train_rows

from bertjax.config.schema import DataConfig
from bertjax.corpus import prepare
from bertjax.data import dataset
from bertjax.data.batches import Course
from bertjax.data.loader import train_batches
from bertjax.data.order import epoch_rows
from bertjax.data.tokenizer import load as load_tokenizer
from bertjax.errors import DataError


@pytest.mark.parametrize("examples", EXAMPLES)
def test_threads_change_nothing(examples):
    assert_same(
        train_rows(3 * N, data=config(examples=examples, loader_threads=1)),
        train_rows(3 * N, data=config(examples=examples, loader_threads=4)),
    )


@pytest.mark.parametrize("start_row", [1, 8, N - 1, N, 2 * N + 3])
def test_restart_anywhere_gives_the_same_rows(start_row):
    whole = train_rows(start_row + 20)
    assert_same({name: array[start_row:] for name, array in whole.items()}, train_rows(20, start_row=start_row))


def test_a_late_restart_is_as_quick_as_an_early_one():
    reads = []
    prepared = SimpleNamespace(**vars(PREPARED))
    prepared.train = SimpleNamespace(**vars(PREPARED.train))
    prepared.train.tokens = lambda a, b: reads.append(a) or PREPARED.train.tokens(a, b)
    iterator = train_batches(DATA, prepared, TOKENIZER, seed=0, start_row=10**12 + 7)
    next(iterator)
    iterator.close()
    assert len(reads) <= DATA.batch_size * (2 * DATA.loader_threads + 1)


def test_a_reader_s_error_reaches_the_caller_as_it_is():
    def damaged(start, end):
        raise DataError(f"shard 3, token {start}: damaged; prepare it again")

    prepared = SimpleNamespace(**vars(PREPARED))
    prepared.train = SimpleNamespace(**{**vars(PREPARED.train), "tokens": damaged})
    iterator = train_batches(DATA, prepared, TOKENIZER, seed=0)
    with pytest.raises(DataError, match=r"^shard 3, token \d+: damaged") as caught:
        next(iterator)
    assert type(caught.value) is DataError
    iterator.close()


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("grain-prefetch")]


@pytest.mark.parametrize("closed", [True, False])
def test_threads_stop_with_the_iterator(closed):
    def gone():
        deadline = time.monotonic() + 5
        while prefetch_threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        return not prefetch_threads()

    assert gone(), "left over by another test"
    iterator = train_batches(DATA, PREPARED, TOKENIZER, seed=0)
    next(iterator)
    assert prefetch_threads()
    if closed:
        iterator.close()
    else:
        del iterator
    assert gone()


@pytest.mark.parametrize("changes", [{}, {"packing": 3, "seq_len": 128}, {"buckets": (12, 32)}, {"mix": (0.3, 0.7)}])
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_rows_of_each_batch(changes, hosts):
    data = config(source=("a", "b"), **changes)
    # Process 0 of two has rows 0 and 1, 4 and 5: the shares need not be stretches.
    owned = [[row for row in range(8) if row // (4 // hosts) % hosts == h] for h in range(hosts)]
    iterators = [train_batches(data, PREPARED, TOKENIZER, seed=0, rows=tuple(rows)) for rows in owned]
    alone = train_batches(data, PREPARED, TOKENIZER, seed=0)
    for _ in range(12):
        whole, back = next(alone), np.argsort(np.concatenate(owned))
        parts = [next(iterator) for iterator in iterators]
        assert_same(whole, {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]})
    for iterator in [*iterators, alone]:
        iterator.close()


@pytest.mark.parametrize("packing", [1, 4])
def test_no_plan_of_stops_and_topologies_loses_or_repeats_an_example(packing):
    """Three epochs in pieces: stops at random rows, other hosts and threads each time."""
    data = config(packing=packing, seq_len=128)
    R = epoch_rows(data, PREPARED.train, seed=3)
    N = epoch_rows(config(seq_len=128), PREPARED.train, seed=3)
    total = -(-3 * R // 8)
    for trial in range(10):
        rng = random.Random(trial)
        done, keys = 0, []
        while done < total:
            hosts, count = rng.choice([1, 2, 4]), min(rng.randint(1, 9), total - done)
            threads = config(packing=packing, seq_len=128, loader_threads=rng.randint(1, 3))
            iterators = [
                train_batches(
                    threads,
                    PREPARED,
                    TOKENIZER,
                    seed=3,
                    start_row=8 * done,
                    rows=tuple(range(8)[h * 8 // hosts :][: 8 // hosts]),
                )
                for h in range(hosts)
            ]
            for _ in range(count):
                keys += [packed_keys(next(iterator)) for iterator in iterators]
            for iterator in iterators:
                iterator.close()
            done += count
        seen = np.array([key for part in keys for key in part][: 3 * N]).reshape(3, N)
        assert all(len(set(epoch)) == N for epoch in seen.tolist()), f"plan {trial}"


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """(config, data set, tokenizer) in files, as loader processes need them."""
    folder = tmp_path_factory.mktemp("loader")
    (folder / "corpus.txt").write_text("".join(f"the cat sat {i}. the cat {i} sat.\n\n" for i in range(300)))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "."]
    digits = [str(d) for d in range(10)] + [f"##{d}" for d in range(10)]
    (folder / "vocab.txt").write_text("\n".join(pieces + digits) + "\n")
    data = config(source=(str(folder / "corpus.txt"),), tokenizer=str(folder / "vocab.txt"), packing=2, masking="ngram")
    prepare.prepare(data, folder / "vocab.txt", folder / "data", runner=prepare.local(1))
    return data, dataset.load(folder / "data"), load_tokenizer(folder / "vocab.txt", lower_case=True)


def test_loader_processes_change_nothing(on_disk):
    data, prepared, tokenizer = on_disk
    made = []
    for workers in (0, 1, 2):
        falling = {"mask_rate": 0.4, "final_mask_rate": 0.1, "max_predictions": 13}
        more = DataConfig(**{**vars(data), **falling, "loader_workers": workers})
        made.append(
            rows_of(train_batches(more, prepared, tokenizer, seed=1, course=Course(rows=100), start_row=40), 80)
        )
    assert_same(made[0], made[1])
    assert_same(made[0], made[2])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_is_named_by_whoever_reads_it(on_disk, tmp_path, workers):
    """A loader process opens and checks the data set for itself."""
    data, prepared, tokenizer = on_disk
    for path in prepared.directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (shard,) = tmp_path.glob("bertjax-train*")
    flip(shard, 0.99)  # where ArrayRecord does not look
    more = DataConfig(**{**vars(data), "loader_workers": workers})
    iterator = train_batches(more, dataset.load(tmp_path), tokenizer, seed=0)
    with pytest.raises(DataError) as caught:
        next(iterator)
    iterator.close()
    assert str(caught.value).startswith(f"{shard}: missing or damaged (") and "\n" not in str(caught.value)


LOADER = """
import sys, time
from bertjax.config.schema import DataConfig
from bertjax.data import dataset, loader
from bertjax.data.tokenizer import load as load_tokenizer
if __name__ == "__main__":
    import signal
    prepared = dataset.load({directory!r})
    data = DataConfig(tokenizer={tokenizer!r}, batch_size=8, seq_len=32, max_predictions=5, examples="sop",
                      loader_workers=2)
    tokenizer = load_tokenizer(data.tokenizer, lower_case=True)
    asked = []
    signal.signal({number}, lambda *_: asked.append(1))
    batches = loader.train_batches(data, prepared, tokenizer, seed=0)
    next(batches)
    print("ready", flush=True)
    while not asked:
        time.sleep(0.05)
    for _ in range(200):  # more than what was made ahead
        next(batches)
    print("alive", flush=True)
    time.sleep(600)
"""


def children(group):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group and "zombie" not in (entry / "status").read_text():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def deaf(pid, number):
    """Whether the process blocks or ignores a signal."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(status["SigBlk"], 16) | int(status["SigIgn"], 16)) & 1 << (number - 1))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.long)])
def test_loader_processes_outlive_a_group_signal_and_die_with_their_parent(on_disk, tmp_path, number):
    data, prepared, _ = on_disk
    script = tmp_path / "loader.py"
    script.write_text(LOADER.format(directory=str(prepared.directory), tokenizer=data.tokenizer, number=int(number)))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        seen = {process.pid}
        while len(seen) < 4 and process.poll() is None:  # Python's resource tracker and two loaders
            for pid in set(children(process.pid)) - seen:
                assert deaf(pid, number)  # from its first moment: it is importing still
                seen.add(pid)
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, number)
        assert process.stdout.readline() == "alive\n"
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while children(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not children(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        for pid in children(process.pid):
            os.kill(pid, signal.SIGKILL)
