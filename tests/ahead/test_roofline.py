"""`bertjax.ahead.roofline`: seconds of programs whose operations can be counted by hand."""

from types import SimpleNamespace

import pytest
from programs import LOOP, SPLIT

from bertjax.ahead import hlo
from bertjax.ahead.roofline import KERNEL_PRODUCTS, KERNEL_SHARE, LATENCY, Timing
from bertjax.parallel.topology import CHIPS, Topology


def timing(text, chip, shape, *, kernel_flops=0.0):
    count = 1
    for size in shape:
        count *= size
    devices = [SimpleNamespace(id=i, coords=(i % shape[0], i // shape[0], 0)) for i in range(count)]
    topology = Topology(f"{chip}:test", CHIPS[chip], shape, tuple(devices))
    return Timing(hlo.parse(text), topology, devices, peak=1e15, kernel_flops=kernel_flops)


def test_a_tpu_takes_the_cycles_that_the_compiler_notes():
    found = timing(LOOP, "v5e", (2, 4)).estimate()
    exchange = 12 * (LATENCY + 4096 / CHIPS["v5e"].link)  # sent one way, between neighbours
    assert found.by == "the TPU compiler's cycles"
    assert found.operations["mul"] == pytest.approx(12 * 1826 / 1.5e9, rel=3e-3)
    assert found.exchanged == found.exposed == pytest.approx(exchange)
    assert found.seconds == pytest.approx(found.operations["mul"] + exchange)


def test_a_gpu_is_bound_by_memory_or_by_products():
    run = timing(SPLIT, "h100", (2, 8))
    chip, main = CHIPS["h100"], "main"
    named = run.program.named[main]
    assert run.own(main, named["product"]) == pytest.approx(2 * (1024 * 768 + 512 * 256) / chip.memory_speed)
    wide = timing(SPLIT.replace("512", "51200"), "h100", (2, 8))
    flops = 2 * 1024 * 51200 * 256
    assert wide.own(main, wide.program.named[main]["product"]) > flops / (1e15 * chip.matrix_share) * 0.999
    assert run.estimate().by == "roofline"


def test_work_covers_an_exchange_that_is_split():
    run = timing(SPLIT, "h100", (2, 8))
    reduced, gathered = run.collectives
    product = run.own("main", run.program.named["main"]["product"])
    assert run.exposed(reduced) == pytest.approx(run.exchange(reduced) - product)
    assert run.exposed(gathered) == run.exchange(gathered)
    found = run.estimate()
    assert found.exchanged - found.exposed == pytest.approx(product)
    # Work before its start covers nothing.
    first = "  %first = bf16[1024,256]{1,0} fusion(%x, %y), kind=kCustom, calls=%products\n  %start ="
    later = timing(SPLIT.replace("  %start =", first), "h100", (2, 8))
    assert later.exposed(later.collectives[0]) == run.exposed(reduced) > 0
    # With nothing between its ends, nothing covers it.
    bare = timing(SPLIT.replace("fusion(%x, %y), kind=kCustom", "bitcast(%x, %y)"), "h100", (2, 8))
    assert bare.exposed(bare.collectives[0]) == bare.exchange(bare.collectives[0])


def test_a_group_that_spans_hosts_is_slower():
    reduced, gathered = timing(SPLIT, "h100", (2, 8)).collectives
    run, whole = timing(SPLIT, "h100", (2, 8)), timing(SPLIT, "h100", (1, 16))
    assert reduced.group == tuple(range(8)) and run.exchange(reduced) == whole.exchange(reduced)
    assert run.exchange(gathered) - whole.exchange(gathered) == pytest.approx(gathered.sent / 4 / 5e10)


def test_kernels_are_counted_by_their_products():
    text = SPLIT.replace(
        "fusion(%x, %y), kind=kCustom, calls=%products", 'custom-call(%x, %y), custom_call_target="__cudnn$fmha"'
    )
    found = timing(text, "h100", (2, 8), kernel_flops=1e12).estimate()
    assert found.operations["attention kernels"] == pytest.approx(KERNEL_PRODUCTS * 1e12 / (KERNEL_SHARE * 1e15))
    assert any("attention kernels" in line for line in found.assumptions)
    without = timing(SPLIT, "h100", (2, 8), kernel_flops=1e12).estimate()
    assert "attention kernels" not in without.operations


def test_loops_of_unknown_length_are_told():
    silent = timing(LOOP.replace("constant(12)", "parameter(1)"), "v5e", (2, 4)).estimate()
    assert any(line.startswith("1 loops do not tell") for line in silent.assumptions)


@pytest.mark.parametrize(("text", "chip", "shape"), [(LOOP, "v5e", (2, 4)), (SPLIT, "h100", (2, 8))])
def test_each_operation_has_its_part_of_the_whole(text, chip, shape):
    text = text.replace("all-gather(%y), ", 'custom-call(%y), custom_call_target="__cudnn$fmha", ')
    run = timing(text, chip, shape, kernel_flops=1e9)
    each = list(run.each())
    assert sum(one.seconds for one in each) == pytest.approx(run.estimate().seconds)
    sent = sum(one.seconds for one in each if one.kind == "exchanges")
    assert sent == pytest.approx(run.estimate().exposed) and sent > 0
    if text.startswith("HloModule jit_f"):
        (product,) = [one for one in each if one.name == "m"]
        assert (product.kind, product.place, product.times) == ("elementwise", "mul", 12)
    else:
        (kernel,) = [one for one in each if one.kind == "attention kernels"]
        assert kernel.seconds == pytest.approx(KERNEL_PRODUCTS * 1e9 / (KERNEL_SHARE * 1e15))
