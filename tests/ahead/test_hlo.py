"""`bertjax.ahead.hlo`: what is read from the text of a program, on texts whose answers are known and on a real one."""

import jax
import jax.numpy as jnp
import pytest
from programs import LOOP

from bertjax.ahead import hlo
from bertjax.ahead.hlo import Shape


@pytest.mark.parametrize(
    ("text", "expected", "size"),
    [
        ("f32[]", [Shape("f32", ())], 4),
        ("bf16[3,4,64]{2,1,0:T(4,128)(2,1)S(1)}", [Shape("bf16", (3, 4, 64), fast=True)], 2 * 3 * 4 * 64),
        ("pred[5]{0}", [Shape("pred", (5,))], 5),
        ("s4[6]", [Shape("s4", (6,))], 3),
        ("f8e4m3fn[2,<=8]{1,0}", [Shape("f8e4m3fn", (2, 8))], 16),
        ("(s32[]{:T(128)}, /*index=1*/(f32[2]{0}, u64[3]{0}), token[])", None, 4 + 8 + 24),
    ],
)
def test_shapes_and_their_bytes(text, expected, size):
    found = hlo.shapes(text)
    assert expected is None or list(found) == expected
    assert sum(shape.bytes for shape in found) == size


def test_an_instruction_is_taken_apart():
    program = hlo.parse(LOOP)
    loop = program.named["main"]["w"]
    assert (loop.opcode, loop.operands, loop.is_root) == ("while", ("t",), True)
    assert loop.op_name == "jit(f)/while" and loop.called == ["body"]
    assert [shape.dims for shape in loop.shapes] == [(), (8, 128)]
    multiply = program.named["body"]["m"]
    assert (multiply.opcode, multiply.operands, multiply.cycles) == ("multiply", ("g1", "g1"), 1826)
    assert program.named["body"]["n"].cycles is None
    assert program.entry == "main" and set(program.computations) == {"main", "body", "condition", "sum"}


def test_a_loop_is_as_long_as_it_says():
    program = hlo.parse(LOOP)
    assert program.trips(program.named["main"]["w"]) == 12  # the constant of its condition
    noted = hlo.parse(LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'))
    assert noted.trips(noted.named["main"]["w"]) == 7
    silent = hlo.parse(LOOP.replace("constant(12)", "parameter(1)"))
    assert silent.trips(silent.named["main"]["w"]) is None
    assert (program.unknown_loops(), silent.unknown_loops()) == (0, 1)


def test_what_is_in_a_loop_is_executed_as_often():
    times = {instruction.name: count for _, instruction, count in hlo.parse(LOOP).executed()}
    assert times["m"] == 12 and times["w"] == times["t"] == 1
    assert "s" not in times  # the sum of an all-reduce is no operation of its own


def test_each_branch_counts_whole():
    text = LOOP.replace(
        " while(%t), condition=%condition, body=%body", " conditional(%p), branch_computations={%body, %sum}"
    )
    times = {instruction.name: count for _, instruction, count in hlo.parse(text).executed()}
    assert times["m"] == times["s"] == 1


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule x\n")


def test_a_real_program_of_two_nested_loops():
    def inner(x, _):
        return jnp.sin(x) @ x, None

    def outer(x, _):
        return jax.lax.scan(inner, x, length=5)[0], None

    compiled = jax.jit(lambda x: jax.lax.scan(outer, x, length=3)[0]).lower(jnp.ones((64, 64))).compile()
    program = hlo.parse(compiled.as_text())
    assert sorted({count for _, _, count in program.executed()}) == [1, 3, 15]
    assert program.unknown_loops() == 0
