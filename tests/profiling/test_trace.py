"""`bertjax.profiling.trace`: how a moment is divided, on traces that are written here, and on one of a real program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.profiler import ProfileData

from bertjax.ahead import hlo
from bertjax.errors import DataError, StorageError
from bertjax.profiling import trace


def data(planes):
    """A trace: plane -> line -> events (begin, end, what is told of it), in microseconds."""
    text = []
    for plane, lines in planes.items():
        names = sorted({name for events in lines.values() for *_, told in events for name in told})
        called = sorted({told.get("called", "event") for events in lines.values() for *_, told in events})
        parts = [f'name: "{plane}"']
        parts += [f'event_metadata {{ key: {i} value {{ id: {i} name: "{n}" }} }}' for i, n in enumerate(called, 1)]
        parts += [f'stat_metadata {{ key: {i} value {{ id: {i} name: "{n}" }} }}' for i, n in enumerate(names, 1)]
        for number, (line, events) in enumerate(lines.items()):
            shown = []
            for begin, end, told in events:
                stats = [
                    f"stats {{ metadata_id: {names.index(name) + 1} "
                    + (f'str_value: "{value}"' if isinstance(value, str) else f"int64_value: {value}")
                    + " }"
                    for name, value in told.items()
                ]
                place = called.index(told.get("called", "event")) + 1
                shown.append(
                    f"events {{ metadata_id: {place} offset_ps: {begin * 10**6} duration_ps: {(end - begin) * 10**6}"
                    f" {' '.join(stats)} }}"
                )
            parts.append(f'lines {{ id: {number} name: "{line}" {" ".join(shown)} }}')
        text.append(f"planes {{ {' '.join(parts)} }}")
    return ProfileData.from_text_proto("\n".join(text))


def op(begin, end, name, device=0, module="jit_step"):
    return begin, end, {"hlo_op": name, "hlo_module": module, "device_ordinal": device}


def micro(found):
    return {name: round(1e6 * value, 6) for name, value in found.items()}


def test_the_inner_of_operations_that_lie_in_each_other_is_at_work():
    found = trace.read(
        data({"/host:CPU": {"a": [op(0, 100, "while"), op(10, 30, "dot"), op(40, 90, "dot")]}}), "jit_step"
    )
    assert micro(found.seconds) == {"while": 30, "dot": 70} and found.times == {"while": 1, "dot": 2}
    assert found.covered == found.busy == pytest.approx(100e-6) and found.devices == 1


def test_of_two_that_begin_together_the_shorter_one_is_the_inner_one():
    for events in ([op(0, 30, "dot"), op(0, 100, "while")], [op(0, 100, "while"), op(0, 30, "dot")]):
        found = trace.read(data({"/host:CPU": {"a": events}}), "jit_step")
        assert micro(found.seconds) == {"while": 70, "dot": 30}


def test_a_moment_is_divided_among_the_lines_at_work():
    lines = {"a": [op(0, 60, "x")], "b": [op(40, 80, "y")], "c": [op(200, 210, "x")]}
    found = trace.read(data({"/host:CPU": lines}), "jit_step")
    assert micro(found.seconds) == {"x": 40 + 10 + 10, "y": 10 + 20}
    assert found.covered == pytest.approx(90e-6) and found.busy == pytest.approx(110e-6)


def test_of_several_devices_it_is_the_mean():
    """Which share the threads of a CPU: one takes on work of another device while it waits."""
    lines = {"a": [op(0, 100, "dot", 0), op(20, 60, "dot", 1)], "b": [op(0, 10, "add", 1)]}
    found = trace.read(data({"/host:CPU": lines}), "jit_step")
    assert found.devices == 2 and micro(found.seconds) == {"dot": 70, "add": 5}
    assert found.times == {"dot": 1, "add": 0.5} and found.covered == pytest.approx(75e-6)


def test_what_is_of_another_program_or_no_operation_does_not_count():
    lines = {"a": [op(0, 10, "dot"), op(20, 50, "dot", module="jit_other"), (60, 90, {"called": "Execute"})]}
    assert micro(trace.read(data({"/host:CPU": lines}), "jit_step").seconds) == {"dot": 10}
    with pytest.raises(DataError, match="no operation of jit_more"):
        trace.read(data({"/host:CPU": lines}), "jit_more")


def test_of_a_gpu_its_streams_count_and_not_the_threads_that_feed_it():
    planes = {
        "/host:CPU": {"a": [op(0, 500, "fusion.1")]},
        "/device:GPU:0": {"Stream #1": [op(0, 10, "fusion.1")], "Stream #2": [op(10, 30, "all-reduce.1")]},
        "/device:GPU:1": {"Stream #1": [op(0, 20, "fusion.1")]},
    }
    found = trace.read(data(planes), "jit_step")
    assert found.devices == 2 and micro(found.seconds) == {"fusion.1": 15, "all-reduce.1": 10}


def test_of_a_tpu_the_line_of_its_operations_counts():
    """Whose events are called as the program calls them."""
    called = [(0, 10, "%while.2 = (s32[]) while(%t)"), (2, 8, "%fusion.3 = f32[8]{0} fusion(%x)"), (20, 30, "copy.1")]
    operations = [(begin, end, {"called": name}) for begin, end, name in called]
    lines = {"Steps": [op(0, 90, "0")], "XLA Ops": operations, "Async XLA Ops": [(0, 90, {"called": "copy-start"})]}
    found = trace.read(data({"/device:TPU:0": lines, "/device:CUSTOM:x": {"XLA Ops": operations}}), "jit_step")
    assert micro(found.seconds) == {"while.2": 4, "fusion.3": 6, "copy.1": 10}


@pytest.mark.parametrize("seed", range(5))
def test_every_moment_is_counted_once(seed):
    """Against a walk through all moments."""
    rng = np.random.default_rng(seed)
    lines, expected, covered = {}, dict.fromkeys("abc", 0.0), 0
    for line in range(3):
        starts, lengths = rng.choice(60, 8, replace=False), rng.integers(1, 30, size=8)
        lines[f"line {line}"] = [
            op(int(s), int(s + n), rng.choice(list("abc"))) for s, n in zip(starts, lengths, strict=True)
        ]
    for moment in range(100):
        at_work = [
            max((begin, told["hlo_op"]) for begin, end, told in events if begin <= moment < end)[1]
            for events in lines.values()
            if any(begin <= moment < end for begin, end, _ in events)
        ]
        covered += bool(at_work)
        for name in at_work:
            expected[name] += 1 / len(at_work)
    found = trace.read(data({"/host:CPU": lines}), "jit_step")
    assert micro(found.seconds) == pytest.approx({name: value for name, value in expected.items() if value}, abs=1e-3)
    assert found.covered == pytest.approx(covered * 1e-6) == pytest.approx(sum(found.seconds.values()))


def test_a_real_program_is_seen_as_often_as_its_loop_says(tmp_path):
    def f(x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, length=6)[0]

    x = jnp.ones((64, 64))
    program = jax.jit(f).lower(x).compile()
    with trace.tracing(tmp_path):
        for _ in range(2):
            program(x).block_until_ready()
    found = trace.read(ProfileData.from_file(str(trace.newest(tmp_path))), "jit_f")
    executed = list(hlo.parse(program.as_text()).executed())
    times = {instruction.name: 2 * count for _, instruction, count in executed}
    assert found.times.items() <= times.items() and 12 in found.times.values()
    assert sum(found.seconds.values()) == pytest.approx(found.covered) and found.covered <= found.busy


def test_a_directory_without_a_trace_and_one_that_is_full(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="left no trace there"):
        trace.newest(tmp_path)

    def stop():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: x.xplane.pb; No space left on device")

    monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", stop)
    with pytest.raises(StorageError, match="cannot be written .*No space left"), trace.tracing(tmp_path):
        pass
