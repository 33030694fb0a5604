"""`bertjax.ahead.traffic`: bytes in memory and between chips, of texts whose answers are known and of a program."""

import jax
import jax.numpy as jnp
import pytest
from programs import LOOP, SPLIT

from bertjax.ahead import hlo
from bertjax.ahead.traffic import collectives, memory_bytes, product_flops
from bertjax.config.schema import MeshConfig
from bertjax.parallel import sharding


def only(text):
    (found,) = collectives(hlo.parse(text))
    return found


def test_an_exchange_in_a_loop():
    found = only(LOOP)
    assert (found.kind, found.bytes, found.times, found.split) == ("all-reduce", 4096, 12, False)
    assert found.group == (0, 1)  # along fsdp, the inner axis
    assert found.sent == 2 * 4096 / 2


@pytest.mark.parametrize(
    ("written", "group"),
    [
        ("mesh['data'=4,'fsdp'=2] {'data'}", (0, 2, 4, 6)),
        ("mesh['data'=4,'fsdp'=2] {'data','fsdp'}", tuple(range(8))),
        ("{{0,3},{1,2}}", (0, 3)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
        ("[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("[2,4]<=[2,2,2]T(1,0,2)", (0, 1, 4, 5)),
    ],
)
def test_groups_in_each_form(written, group):
    assert only(LOOP.replace("mesh['data'=4,'fsdp'=2] {'fsdp'}", written)).group == group


def test_a_group_of_one_exchanges_nothing():
    assert collectives(hlo.parse(LOOP.replace("mesh['data'=4,'fsdp'=2] {'fsdp'}", "{{0},{1}}"))) == []


def test_exchanges_that_are_split_and_that_gather():
    reduced, gathered = collectives(hlo.parse(SPLIT))
    assert (reduced.kind, reduced.bytes, reduced.split, len(reduced.group)) == ("all-reduce", 512 * 256 * 2, True, 8)
    assert reduced.sent == 2 * 7 / 8 * reduced.bytes
    assert (gathered.kind, gathered.bytes, gathered.split) == ("all-gather", 8 * 512 * 256 * 2, False)
    assert gathered.sent == 7 * 512 * 256 * 2


def test_memory_is_counted_by_what_is_used():
    program = hlo.parse(SPLIT)
    moved = {i.name: memory_bytes(program, name, i) for name, i, _ in program.executed()}
    assert moved["product"] == 2 * (1024 * 512 + 512 * 256 + 1024 * 256)
    assert moved["slice"] == 2 * 4000 + 4  # a row out of 24, and its number
    assert moved["update"] == 4000 + 4000 + 4  # a row is read and written
    assert moved["stack"] == moved["done"] == 0
    beside = hlo.parse(
        SPLIT.replace(
            "f32[1,1000]{1,0} fusion(%stack", "((f32[24,1000], s32[]), f32[1,1000], u32[]) fusion-start(%stack"
        )
    )
    assert memory_bytes(beside, "main", beside.named["main"]["slice"]) == moved["slice"]
    fast = hlo.parse(SPLIT.replace("%x = bf16[1024,512]{1,0}", "%x = bf16[1024,512]{1,0:S(1)}"))
    assert memory_bytes(fast, "main", fast.named["main"]["product"]) == moved["product"] - 2 * 1024 * 512


def test_products():
    program = hlo.parse(SPLIT)
    flops = {i.name: product_flops(program, name, i) for name, i, _ in program.executed()}
    assert flops.pop("product") == 2 * 1024 * 512 * 256 and not any(flops.values())
    called = 'custom-call(%x, %y), backend_config={"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}'
    library = SPLIT.replace("fusion(%x, %y), kind=kCustom, calls=%products", called)
    program = hlo.parse(library)
    assert product_flops(program, "main", program.named["main"]["product"]) == 2 * 1024 * 512 * 256


def test_a_real_reduction_over_eight_devices():
    mesh = sharding.make_mesh(MeshConfig())
    rows = jax.ShapeDtypeStruct((64, 1000), jnp.float32, sharding=sharding.rows_sharding(mesh))

    def f(x):
        return jax.lax.scan(lambda total, _: (total + jnp.sin(x * total).sum(0), None), jnp.zeros(1000), length=6)[0]

    jitted = jax.jit(lambda x: f(x), out_shardings=sharding.replicated(mesh))
    with jax.numpy_rank_promotion("allow"):
        found = collectives(hlo.parse(jitted.lower(rows).compile().as_text()))
    assert {one.kind for one in found} == {"all-reduce"} and all(one.group == tuple(range(8)) for one in found)
    assert sum(one.times for one in found) == 6 and sum(one.times * one.bytes for one in found) == 6 * 4000
