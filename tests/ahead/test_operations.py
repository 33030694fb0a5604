"""`bertjax.ahead.operations`: kinds and places of operations whose text is known."""

import pytest
from programs import LOOP, SPLIT

from bertjax.ahead import hlo
from bertjax.ahead.operations import KINDS, Operation, label

FUSED = """HloModule jit_x

%inside (a: f32[8,128], i: s32[]) -> f32[8,128] {{
  %a = f32[8,128]{{1,0}} parameter(0)
  %i = s32[] parameter(1)
  %one = s32[] constant(1)
  %next = s32[] subtract(%i, %one)
{lines}
}}

ENTRY %main (x: f32[8,128], n: s32[]) -> f32[8,128] {{
  %x = f32[8,128]{{1,0}} parameter(0)
  %n = s32[] parameter(1)
  ROOT %f = f32[8,128]{{1,0}} fusion(%x, %n), kind=kLoop, calls=%inside{metadata}
}}
"""


def fused(*lines, op_name=""):
    """An operation of these lines, of arrays where they do not say."""
    shown = "\n".join(f"  %p{k} = {'' if '[' in line else 'f32[8,128]{1,0} '}{line}" for k, line in enumerate(lines))
    metadata = f', metadata={{op_name="{op_name}"}}' if op_name else ""
    program = hlo.parse(FUSED.format(lines=shown, metadata=metadata))
    return Operation(program, "main", program.named["main"]["f"])


def single(line):
    program = hlo.parse(f"ENTRY %main (y: f32[8]) -> f32[8] {{\n  %x = {line}\n}}")
    return Operation(program, "main", program.named["main"]["x"])


UPDATE = "jit(train_step)/cond/branch_1_fun/add"


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (fused("dot(%a, %a), lhs_contracting_dims={1}", "add(%p0, %a)"), "matrix products"),
        (fused("convolution(%a, %a), dim_labels=bf_io->bf", "rng-bit-generator(%p0)"), "matrix products"),
        (single('f32[8] custom-call(%y), custom_call_target="__cublas$lt$matmul"'), "matrix products"),
        (fused("dot(%a, %a), lhs_contracting_dims={1}", op_name=UPDATE), "optimizer"),  # of Muon
        (fused("multiply(%a, %a)", "sqrt(%p0)", op_name=UPDATE), "optimizer"),
        (single('f32[8] custom-call(%y), custom_call_target="tpu_custom_call"'), "attention kernels"),
        (single('f32[8] custom-call(%y), custom_call_target="__cudnn$fmhaSoftmaxBackward"'), "attention kernels"),
        (single(f'f32[8] all-reduce-start(%y), metadata={{op_name="{UPDATE}"}}'), "exchanges"),
        (single("f32[8] all-reduce-done(%y)"), "exchanges"),
        (single("f32[8] reduce-scatter(%y)"), "exchanges"),
        (fused("gather(%a, %i)", "multiply(%p0, %a)"), "look-ups"),
        (single("f32[8] scatter(%y, %y, %y)"), "look-ups"),
        (fused("shift-right-logical(%a, %a)", "xor(%a, %p0)", "multiply(%p1, %a)"), "random bits"),
        (fused("xor(%a, %a)"), "elementwise"),
        (single("u32[8] rng-bit-generator(%y)"), "random bits"),
        (fused("exponential(%a)", "f32[8]{0} reduce(%p0, %i), to_apply=%sum"), "reductions"),
        (fused("dynamic-slice(%a, %next, %i)", "transpose(%p0)"), "copies and slices"),
        (single("f32[8] copy-start(%y)"), "copies and slices"),
        (fused("dynamic-slice(%a, %next, %i)", "add(%p0, %a)", "dynamic-update-slice(%a, %p1, %i)"), "elementwise"),
        (single("f32[8] tanh(%y)"), "elementwise"),
        (single('f32[8] custom-call(%y), custom_call_target="lapack_dgetrf"'), "other"),
        (single("f32[8] sort(%y)"), "other"),
    ],
)
def test_kinds(operation, expected):
    assert operation.kind == expected and expected in KINDS


def test_a_loop_and_what_is_in_it():
    program = hlo.parse(LOOP)
    kinds = {i.name: Operation(program, name, i).kind for name, i, _ in program.executed()}
    assert (kinds["w"], kinds["m"], kinds["r"]) == ("loops", "elementwise", "exchanges")
    program = hlo.parse(SPLIT)
    kinds = {i.name: Operation(program, name, i).kind for name, i, _ in program.executed()}
    assert kinds["product"] == "matrix products" and kinds["start"] == kinds["done"] == kinds["gathered"] == "exchanges"
    assert kinds["slice"] == kinds["update"] == "copies and slices"


@pytest.mark.parametrize(
    ("op_name", "expected"),
    [
        ("jit(train_step)/jvp(Network)/encoder/while/body/layers/FFN/dot_general", "forward encoder FFN dot_general"),
        ("jit(train_step)/transpose(jvp(Network))/mlm_head/reduce_sum", "backward mlm_head reduce_sum"),
        ("jit(train_step)/add", "update add"),
        (UPDATE, "update add"),
        ("", "other"),
    ],
)
def test_operations_are_named_after_the_model(op_name, expected):
    line = f'  %x = f32[] add(%y, %y), metadata={{op_name="{op_name}"}}' if op_name else "  %x = f32[] add(%y, %y)"
    program = hlo.parse(f"ENTRY %main (y: f32[]) -> f32[] {{\n{line}\n}}")
    assert label(program.named["main"]["x"]) == expected


def named(opcode, name):
    return f'{opcode}(%a, %a), metadata={{op_name="jit(train_step)/jvp(Network)/encoder/{name}"}}'


def test_a_fusion_is_named_after_the_last_part_that_is_told():
    found = fused(named("multiply", "first"), named("multiply", "second"), "add(%p0, %p1)")
    assert found.place == "forward encoder second"
    assert fused(named("multiply", "first"), op_name=UPDATE).place == "update add"
    assert fused("add(%a, %a)").place == "other"


def test_a_product_counts_more_than_what_is_fused_with_it():
    found = fused(named("dot", "product"), named("select", "mask"), op_name="jit(train_step)/jvp(Network)/encoder/mask")
    assert found.place == "forward encoder product"


def test_what_is_not_told_is_named_after_what_takes_it():
    """Also where a tuple is between them."""
    text = LOOP.replace('op_name="jit(f)/while"', 'op_name="jit(train_step)/jvp(Network)/encoder/while"')
    text = text.replace("%zero = s32[]", "%copy.1 = f32[8,128]{1,0} copy(%p)\n  %zero = s32[]")
    program = hlo.parse(text.replace("tuple(%zero, %p)", "tuple(%zero, %copy.1)"))
    found = Operation(program, "main", program.named["main"]["copy.1"])
    assert found.place == "forward encoder" and found.kind == "copies and slices"


@pytest.mark.parametrize(
    ("op_name", "opcode", "expected"),
    [
        ("jit(train_step)/jvp(Network)/encoder/while/body/groups/layers/Attention/norm/mul", "multiply", "attention"),
        ("jit(train_step)/transpose(jvp(Network))/encoder/first/ffn/BLH,HF->BLF/dot_general", "dot", "ffn"),
        ("jit(train_step)/jvp(Network)/encoder/embeddings/gather", "gather", "embeddings"),
        ("jit(train_step)/transpose(jvp(Network))/encoder/while/body/dynamic_slice", "dynamic-slice", "encoder"),
        ("jit(train_step)/jvp(Network)/mlm_head/add", "add", "mlm_head"),
        ("jit(train_step)/jvp()/reduce_sum", "reduce", "loss"),
        (UPDATE, "add", "optimizer"),
        ("jit(train_step)/psum", "all-reduce", "exchanges"),
        ("jit(train_step)/jvp(Network)/encoder/while/body/groups/layers/ffn/gather", "all-gather", "ffn"),
        ("", "add", "other"),
    ],
)
def test_parts_of_a_step(op_name, opcode, expected):
    assert single(f'f32[8] {opcode}(%y, %y), metadata={{op_name="{op_name}"}}').part == expected
