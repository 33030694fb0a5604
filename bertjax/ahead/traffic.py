"""What a compiled program moves: through the memory of a chip, and from chip to chip."""

import re
from dataclasses import dataclass

import numpy as np

from bertjax.ahead.hlo import Instruction, Program, Shape

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
"""How chips exchange arrays."""

_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
         "partition-id", "replica-id", "opt-barrier", "async-start", "async-update", "async-done", "iota")  # fmt: skip
"""Opcodes that move nothing themselves."""
_FUSIONS = ("fusion", "fusion-start")
"""A GPU does some of them beside others; they are awaited later."""


@dataclass(frozen=True)
class Collective:
    """An exchange, once in a run of the program or `times` times."""

    kind: str
    bytes: float
    """Of the whole array, on one chip: what is reduced, or what is there when all parts are gathered."""
    group: tuple[int, ...]
    """The chips of one group, as places in the mesh; all groups are alike."""
    times: float
    computation: str
    instruction: Instruction
    split: bool
    """Whether it is started at one place and awaited at a later one, with other work between."""

    @property
    def sent(self) -> float:
        """Bytes that each chip sends, once, by a ring's algorithm: twice around for a reduction that all receive."""
        others = (len(self.group) - 1) / len(self.group)
        if self.kind == "collective-permute":
            return self.bytes
        return self.bytes * others * (2 if self.kind == "all-reduce" else 1)


def collectives(program: Program) -> list[Collective]:
    """Every exchange between chips, also where the compiler has put it into a fusion."""
    found = []
    for computation, instruction, times in program.executed():
        is_async = instruction.opcode == "async-start"
        inner = instruction.called if instruction.opcode == "fusion" else []
        places = [(computation, instruction, instruction.opcode.endswith("-start"))]
        places += [(name, i, True) for name in inner for i in program.computations.get(name, [])]
        for place, i, split in places if not is_async else []:
            kind = i.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            group = _group(i.attributes)
            operands = [program.named[place][name] for name in i.operands if name in program.named[place]]
            size = sum(shape.bytes for operand in operands for shape in operand.shapes)
            whole = size * len(group) if kind == "all-gather" else size
            if len(group) > 1:
                found.append(Collective(kind, whole, group, times, computation, instruction, split))
    return found


def memory_bytes(program: Program, computation: str, instruction: Instruction) -> float:
    """What an operation reads from and writes to the main memory. Of a slice, or an update in place, only that part."""
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return 0.0
    here = program.named[computation]
    read = [here[name] for name in instruction.operands if name in here]
    if instruction.opcode in _FUSIONS:
        inner = program.named.get(instruction.called[0], {}) if instruction.called else {}
        parameters = {int(i.inside): i for i in inner.values() if i.opcode == "parameter"}
        moved = _written(inner, instruction)
        for place, operand in enumerate(read):
            moved += _read(inner, parameters[place], operand) if place in parameters else _main(operand.shapes)
        return moved
    if instruction.opcode == "copy-start":
        return 2 * sum(_main(operand.shapes) for operand in read)
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * _main(instruction.shapes)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _main(read[1].shapes)
    return _main(instruction.shapes) + sum(_main(operand.shapes) for operand in read)


def product_flops(program: Program, computation: str, instruction: Instruction) -> float:
    """Of the matrix products in an operation of a GPU or CPU program: two for each multiply-add."""
    if instruction.opcode in _FUSIONS:
        return sum(
            product_flops(program, name, i)
            for name in instruction.called
            for i in program.computations.get(name, [])
            if i.opcode in ("dot", "fusion", "custom-call")
        )
    marked = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]([\d,"]+)[}\]]', instruction.attributes)
    if not marked or instruction.opcode not in ("dot", "custom-call"):
        return 0.0
    left = program.named[computation].get(instruction.operands[0])
    if left is None or not left.shapes:
        return 0.0
    contracted = 1
    for axis in marked[1].replace('"', "").split(","):
        contracted *= left.shapes[0].dims[int(axis)]
    return 2.0 * instruction.shapes[0].size * contracted


def _main(shapes: tuple[Shape, ...]) -> float:
    return sum(shape.bytes for shape in shapes if not shape.fast)


def _read(inner: dict[str, Instruction], parameter: Instruction, operand: Instruction) -> float:
    """Of an operand of a fusion: the slices of it that are taken, if nothing else is done with it."""
    users = [i for i in inner.values() if parameter.name in i.operands]
    if users and all(i.operands[0] == parameter.name for i in users):
        if all(i.opcode in ("dynamic-slice", "slice", "gather") for i in users):
            return sum(_main(i.shapes) for i in users)
        if all(i.opcode == "dynamic-update-slice" for i in users):
            return 0.0
    return _main(operand.shapes)


def _written(inner: dict[str, Instruction], fusion: Instruction) -> float:
    """By a fusion: its results, or of those that are updated in place the part that is new."""
    roots = [i for i in inner.values() if i.is_root]
    if roots and roots[0].opcode == "tuple":
        roots = [inner[name] for name in roots[0].operands if name in inner]
    while any(i.opcode == "bitcast" for i in roots):
        roots = [inner[i.operands[0]] if i.opcode == "bitcast" else i for i in roots]
    if fusion.opcode == "fusion" and not any(i.opcode == "dynamic-update-slice" for i in roots):
        return _main(fusion.shapes)
    return sum(_main(inner[i.operands[1]].shapes if i.opcode == "dynamic-update-slice" else i.shapes) for i in roots)


def _group(attributes: str) -> tuple[int, ...]:
    """The first group of an exchange, in each of the forms that HLO has for them; () where there is none."""
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", attributes)
    if listed:
        return tuple(int(n) for n in listed[1].split(","))
    counted = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if counted:
        groups, dims, turned = ([int(n) for n in part.split(",")] if part else [] for part in counted.groups())
        places = np.arange(np.prod(dims)).reshape(dims)
        return tuple(places.transpose(turned or range(len(dims))).reshape(groups)[0].tolist())
    meshed = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", attributes)
    if not meshed:
        return ()
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", meshed[1])}
    along = re.findall(r"'(\w+)'", meshed[2])
    places = np.arange(np.prod(list(sizes.values()))).reshape(list(sizes.values()))
    chosen = tuple(slice(None) if name in along else 0 for name in sizes)
    return tuple(np.ravel(places[chosen]).tolist())
