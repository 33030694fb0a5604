"""The stream of batches: what it holds, and that nothing but (seed, epoch, example) decides it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bertjax import batch
from bertjax.config.schema import DataConfig
from bertjax.corpus import prepare
from bertjax.data import dataset, tokenizer
from bertjax.data.pipeline import _Batches, _deal, check, epoch_rows, eval_batches, packing_density, train_batches
from bertjax.errors import DataError

DATA = DataConfig(batch_size=8, seq_len=32, max_predictions=5, examples="sop", loader_threads=2)
SPECIAL = SimpleNamespace(pad=9, unk=1, cls=2, sep=3, mask=4)
VOCAB = 3_000
TOKENIZER = SimpleNamespace(vocab_size=VOCAB, special=SPECIAL, digest="ab" * 32, starts_word=np.arange(VOCAB) % 3 > 0)
EXAMPLES = ["nsp", "sop", "full_sentences", "doc_sentences"]


def make_split(documents, *, start, name="train"):
    """Documents of 7 sentences of 5 tokens; every token of the split is another id, from `start` on."""
    return SimpleNamespace(
        name=name,
        document_offsets=np.arange(documents + 1) * 7,
        sentence_lengths=np.full(documents * 7, 5, np.int32),
        tokens=lambda a, b: np.arange(start + a, start + b, dtype=np.int32),
        source_documents=(documents // 3, documents - documents // 3),
    )


PREPARED = SimpleNamespace(
    directory=None,
    token_counts=np.ones(VOCAB, np.int64),
    vocab_size=VOCAB,
    tokenizer_digest=TOKENIZER.digest,
    train=make_split(21, start=10),
    validation=make_split(11, start=1_000, name="validation"),
)
N = epoch_rows(DATA, PREPARED.train, seed=0)


def config(**fields):
    return DataConfig(**{**vars(DATA), **fields})


def rows_of(iterator, count):
    """The first `count` rows of a stream of batches, field by field."""
    batches, rows = [], 0
    while rows < count:
        batches.append(next(iterator))
        rows += len(batches[-1]["tokens"])
    iterator.close()
    return {name: np.concatenate([b[name] for b in batches])[:count] for name in batches[0]}


def train_rows(count, *, data=DATA, seed=0, start_row=0):
    return rows_of(train_batches(data, PREPARED, TOKENIZER, seed=seed, start_row=start_row), count)


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def originals(rows):
    """The rows' tokens with the masks undone [rows, L]."""
    tokens_BL = rows["tokens"].copy()
    for tokens_L, positions_P, labels_P, weights_P in zip(
        tokens_BL, rows["mlm_positions"], rows["mlm_labels"], rows["mlm_weights"], strict=True
    ):
        chosen_P = weights_P > 0
        tokens_L[positions_P[chosen_P]] = labels_P[chosen_P]
    return tokens_BL


def example_keys(rows):
    """The first sentence of each row's example: names the example, whatever its cut, swap, truncation and masks."""
    tokens_BL = originals(rows)
    return np.where(tokens_BL >= 10, tokens_BL, VOCAB).min(axis=1) // 5


def packed_keys(rows):
    """As `example_keys` for each example of rows that hold several, one list for all rows."""
    keys = []
    for tokens_L, segments_L in zip(originals(rows), rows["segments"], strict=True):
        texts = [tokens_L[(segments_L == k) & (tokens_L >= 10)] for k in range(1, segments_L.max() + 1)]
        keys += [int(tokens.min()) // 5 for tokens in texts]
    return keys


@pytest.mark.parametrize("examples", EXAMPLES)
def test_batches_match_the_contract(examples):
    data = config(examples=examples)
    spec = batch.spec(data)
    trained = islice(train_batches(data, PREPARED, TOKENIZER, seed=0), 4)
    for made in [*trained, *eval_batches(data, PREPARED, TOKENIZER, seed=0, rows=10)]:
        assert made.keys() == spec.keys()
        for name, field in spec.items():
            assert made[name].shape == field.shape and made[name].dtype == field.dtype, name


def test_the_parts_of_a_row_agree():
    rows = train_rows(2 * N)
    used_BL = rows["segments"] == 1
    length_B = used_BL.sum(axis=1)
    assert (np.diff(rows["segments"], axis=1) <= 0).all() and length_B.min() >= 3
    assert ((rows["tokens"] == SPECIAL.pad) == ~used_BL).all()
    np.testing.assert_array_equal(rows["positions"], np.where(used_BL, np.arange(32), 0))
    assert (rows["token_types"][~used_BL] == 0).all()
    budget_B = np.clip(np.round(length_B * DATA.mask_rate), 1, 5)
    np.testing.assert_array_equal(rows["mlm_weights"], np.arange(5) < budget_B[:, None])
    unused_BP = rows["mlm_weights"] == 0
    assert unused_BP.any() and not rows["mlm_positions"][unused_BP].any() and not rows["mlm_labels"][unused_BP].any()
    tokens_BL = originals(rows)
    assert (tokens_BL[:, 0] == SPECIAL.cls).all() and not rows["pair_positions"].any()
    two_B = (tokens_BL == SPECIAL.sep).sum(axis=1) == 2
    np.testing.assert_array_equal(rows["pair_weights"][:, 0], two_B)
    assert two_B.any() and not two_B.all()


def test_every_example_once_an_epoch_with_other_order_and_masks():
    rows = train_rows(3 * N)  # N is no multiple of the batch size, so batches cross epochs
    assert N % DATA.batch_size != 0
    keys_EN = example_keys(rows).reshape(3, N)
    for keys_N in keys_EN:
        np.testing.assert_array_equal(np.unique(keys_N), np.unique(keys_EN))
        assert len(np.unique(keys_N)) == N
    masks_EN = [
        {key: tuple(positions) for key, positions in zip(keys_N, positions_NP, strict=True)}
        for keys_N, positions_NP in zip(keys_EN, rows["mlm_positions"].reshape(3, N, -1), strict=True)
    ]
    for one, two in ((0, 1), (1, 2), (0, 2)):
        assert (keys_EN[one] != keys_EN[two]).mean() > 0.8
        assert np.mean([masks_EN[one][key] != masks_EN[two][key] for key in masks_EN[one]]) > 0.5


def test_cuts_and_swaps_are_drawn_anew_each_epoch():
    rows = train_rows(6 * N)
    labels = {}
    for key, label, weight in zip(example_keys(rows), rows["pair_labels"], rows["pair_weights"], strict=True):
        if weight[0]:
            labels.setdefault(key, set()).add(int(label[0]))
    assert np.mean([len(seen) == 2 for seen in labels.values()]) > 0.8


@pytest.mark.parametrize("examples", EXAMPLES)
def test_threads_change_nothing(examples):
    assert_same(
        train_rows(3 * N, data=config(examples=examples, loader_threads=1)),
        train_rows(3 * N, data=config(examples=examples, loader_threads=4)),
    )


def test_batch_size_changes_nothing():
    assert_same(train_rows(2 * N), train_rows(2 * N, data=config(batch_size=1)))


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


def test_another_seed_is_another_run():
    one, two = train_rows(2 * N, seed=0), train_rows(2 * N, seed=1)
    assert (example_keys(one) != example_keys(two)).mean() > 0.8
    # grain alone would give the second epoch of seed 0 the order of the first of seed 1.
    assert (example_keys(one)[N:] != example_keys(two)[: len(example_keys(one)) - N]).mean() > 0.8
    train_rows(8, seed=2**70)


def test_no_two_generators_are_alike():
    draws = set()
    for seed in (0, 1, 2**32):
        make = _Batches.of(DATA, PREPARED, PREPARED.train, TOKENIZER, seed, None)
        for stream, source, epoch, example in np.ndindex(2, 2, 2, 2):
            draws.add(int(make._generator(stream, source, epoch, 10**9 + example).integers(2**63)))
    assert len(draws) == 3 * 2**4


def test_eval_is_fixed_held_out_and_padded():
    held_out = epoch_rows(DATA, PREPARED.validation, seed=0)
    for wanted, rows in ((10**6, held_out), (10, 10), (8, 8), (1, 1)):
        one, two = (list(eval_batches(DATA, PREPARED, TOKENIZER, seed=0, rows=wanted)) for _ in range(2))
        assert len(one) == len(two) == -(-rows // DATA.batch_size)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
        made = {name: np.concatenate([b[name] for b in one]) for name in one[0]}
        used_B = made["segments"].any(axis=1)
        np.testing.assert_array_equal(used_B, np.arange(len(used_B)) < rows)
        padding = {name: array[~used_B] for name, array in made.items()}
        assert (padding.pop("tokens") == SPECIAL.pad).all()
        assert not any(array.any() for array in padding.values())
        keys = example_keys(made)[:rows]
        assert len(np.unique(keys)) == rows and keys.min() >= 1_000 // 5
    order = example_keys(rows_of(eval_batches(DATA, PREPARED, TOKENIZER, seed=0, rows=held_out), held_out))
    assert (np.diff(order) < 0).any(), "in order, the first rows would be the first documents"


def test_empty_splits_name_the_fix():
    prepared = SimpleNamespace(**{**vars(PREPARED), "validation": make_split(0, start=10, name="validation")})
    with pytest.raises(DataError, match=r"data\.holdout = 0\.01.*raise data\.holdout"):
        eval_batches(DATA, prepared, TOKENIZER, seed=0, rows=8)
    prepared = SimpleNamespace(**{**vars(PREPARED), "train": make_split(0, start=10)})
    with pytest.raises(DataError, match="train split has no text.*lower data.holdout"):
        train_batches(DATA, prepared, TOKENIZER, seed=0)
    prepared = SimpleNamespace(**{**vars(PREPARED), "validation": make_split(1, start=10, name="validation")})
    with pytest.raises(DataError, match="validation split: .*1 document"):
        eval_batches(config(examples="nsp"), prepared, TOKENIZER, seed=0, rows=8)


def test_another_tokenizer_is_refused():
    other = SimpleNamespace(**{**vars(TOKENIZER), "digest": "cd" * 32})
    check(PREPARED, TOKENIZER)
    for call in (
        lambda: check(PREPARED, other),
        lambda: train_batches(DATA, PREPARED, other, seed=0),
        lambda: eval_batches(DATA, PREPARED, other, seed=0, rows=8),
    ):
        with pytest.raises(DataError, match="abababab.*cdcdcdcd.*data.tokenizer") as caught:
            call()
        assert "\n" not in str(caught.value) and "ababababa" not in str(caught.value)


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


# Packing, buckets, mixing --------------------------------------------------------------------------------------------


def test_packed_rows_hold_every_example_once_and_agree_in_their_parts():
    data = config(seq_len=128, packing=4, max_predictions=24, masking="whole_word")
    R = epoch_rows(data, PREPARED.train, seed=0)
    rows = train_rows(3 * R, data=data)
    plain = epoch_rows(config(seq_len=128), PREPARED.train, seed=0)
    assert 0.8 * plain > R
    keys = np.array(packed_keys(rows)).reshape(3, plain)
    assert all(len(set(epoch)) == plain for epoch in keys.tolist())
    assert packing_density(data, PREPARED.train, seed=0) == pytest.approx((rows["segments"] > 0).mean(), abs=1e-9)
    tokens_BL = originals(rows)
    for i, segments_L in enumerate(rows["segments"]):
        used = segments_L[segments_L > 0]
        assert (
            (np.diff(used) >= 0).all()
            and not segments_L[len(used) :].any()
            and set(used) == set(range(1, used.max() + 1))
        )
        starts = np.flatnonzero(np.diff(used, prepend=0))
        assert rows["pair_positions"][i].tolist() == starts.tolist() + [0] * (4 - len(starts))
        assert (tokens_BL[i, starts] == SPECIAL.cls).all() and (rows["positions"][i, starts] == 0).all()
        seps = [int((tokens_BL[i, segments_L == k] == SPECIAL.sep).sum()) for k in range(1, used.max() + 1)]
        assert rows["pair_weights"][i].tolist() == [float(n == 2) for n in seps] + [0.0] * (4 - len(seps))
        chosen = rows["mlm_positions"][i][rows["mlm_weights"][i] > 0]
        assert (np.diff(chosen) > 0).all() and (segments_L[chosen] > 0).all()
    real = (rows["segments"] > 0).sum()
    assert rows["mlm_weights"].sum() / real == pytest.approx(DATA.mask_rate, abs=0.02)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_buckets_give_each_batch_the_least_length_that_holds_it(examples):
    data = config(examples=examples, buckets="12,20,32", seq_len=32)
    R = epoch_rows(data, PREPARED.train, seed=0)
    iterator = train_batches(data, PREPARED, TOKENIZER, seed=0)
    batches = list(islice(iterator, 2 * R // 8))
    iterator.close()
    seen, padded = [], 0
    for made in batches:
        spec = batch.spec(data, length=made["tokens"].shape[1])
        assert all(made[name].shape == field.shape for name, field in spec.items())
        longest = (made["segments"] > 0).sum(axis=1).max()
        smaller = [length for length in (12, 20, 32) if length < made["tokens"].shape[1]]
        # nsp: the plan knows the longest that an example can become, so a batch may come out shorter than planned.
        assert examples == "nsp" or not smaller or longest > smaller[-1]
        padded += (made["segments"] == 0).all(axis=1).sum()
        seen.append(made["tokens"].shape[1])
    N = epoch_rows(config(examples=examples), PREPARED.train, seed=0)
    assert 32 in seen and (len(set(seen)) > 1 or examples == "full_sentences") and padded == 2 * (R - N) < 16
    if examples == "sop":
        keys = [key for made in batches for key in packed_keys(made)]
        assert len(keys) == 2 * N and len(set(keys[:N])) == N


def test_a_mix_deals_rows_by_their_shares():
    data = config(mix="0.25,0.75", source="a,b")
    rows = train_rows(400, data=data)
    first = example_keys(rows) < (10 + 35 * 7) // 5
    assert first.sum() == 100
    assert all(abs(first[:n].sum() - n / 4) <= 1 for n in range(1, 400))
    with pytest.raises(DataError, match=r"data\.mix = '1,1,1': the data set has 2 sources"):
        train_batches(config(mix="1,1,1", source="a,b,c"), PREPARED, TOKENIZER, seed=0)


def test_each_source_of_a_mix_has_its_own_epochs():
    data = config(mix="0.25,0.75", source="a,b")
    keys = example_keys(train_rows(400, data=data))
    for part in (keys[keys < 51], keys[keys >= 51]):
        N = len(set(part.tolist()))
        for start in range(0, len(part) - N + 1, N):
            assert len(set(part[start : start + N].tolist())) == N


def test_dealing_numbers_each_source_without_a_gap():
    for shares in ((1.0,), (0.5, 0.5), (0.7, 0.2, 0.1), (1e-3, 5.0, 2.0)):
        dealt = [_deal(number, shares) for number in range(5000)]
        for source in range(len(shares)):
            numbers = [at for s, at in dealt if s == source]
            assert numbers == list(range(len(numbers)))
            assert abs(len(numbers) - 5000 * shares[source] / sum(shares)) <= len(shares)


# Hosts, processes, restarts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"packing": 3, "seq_len": 128}, {"buckets": "12,32"}, {"mix": "0.3,0.7"}])
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_rows_of_each_batch(changes, hosts):
    data = config(source="a,b", **changes)
    iterators = [train_batches(data, PREPARED, TOKENIZER, seed=0, host=h, hosts=hosts) for h in range(hosts)]
    alone = train_batches(data, PREPARED, TOKENIZER, seed=0)
    for _ in range(12):
        parts = [next(iterator) for iterator in iterators]
        assert_same(next(alone), {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
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
                train_batches(threads, PREPARED, TOKENIZER, seed=3, start_row=8 * done, host=h, hosts=hosts)
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
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "."]
    digits = [str(d) for d in range(10)] + [f"##{d}" for d in range(10)]
    (folder / "vocab.txt").write_text("\n".join(words + digits) + "\n")
    data = config(source=str(folder / "corpus.txt"), tokenizer=str(folder / "vocab.txt"), packing=2, masking="ngram")
    prepare.prepare(data, folder / "vocab.txt", folder / "data", runner=prepare.local(1))
    return data, dataset.load(folder / "data"), tokenizer.load(folder / "vocab.txt", lower_case=True)


def test_loader_processes_change_nothing(on_disk):
    data, prepared, tokens = on_disk
    made = []
    for workers in (0, 1, 2):
        more = DataConfig(**{**vars(data), "loader_workers": workers})
        made.append(rows_of(train_batches(more, prepared, tokens, seed=1, start_row=40), 80))
    assert_same(made[0], made[1])
    assert_same(made[0], made[2])


LOADER = """
import sys, time
from bertjax.config import DataConfig
from bertjax.data import dataset, pipeline, tokenizer
if __name__ == "__main__":
    import signal
    prepared = dataset.load({directory!r})
    data = DataConfig(tokenizer={vocabulary!r}, batch_size=8, seq_len=32, max_predictions=5, examples="sop",
                      loader_workers=2)
    tokens = tokenizer.load(data.tokenizer, lower_case=True)
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    batches = pipeline.train_batches(data, prepared, tokens, seed=0)
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


def deaf(pid):
    """Whether the process blocks or ignores SIGTERM."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(status["SigBlk"], 16) | int(status["SigIgn"], 16)) & 1 << (signal.SIGTERM - 1))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_loader_processes_outlive_a_group_signal_and_die_with_their_parent(on_disk, tmp_path):
    data, prepared, _ = on_disk
    script = tmp_path / "loader.py"
    script.write_text(LOADER.format(directory=str(prepared.directory), vocabulary=data.tokenizer))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        seen = {process.pid}
        while len(seen) < 4 and process.poll() is None:  # Python's resource tracker and two loaders
            for pid in set(children(process.pid)) - seen:
                assert deaf(pid)  # from its first moment: it is importing still
                seen.add(pid)
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGTERM)
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
