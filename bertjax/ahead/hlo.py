"""The text of a compiled program (HLO, as `jax.stages.Compiled.as_text` gives it) -> its instructions, and how often
each is executed.

A program is a set of computations, lists of instructions in the order of their execution; one is the entry, and the
others are called: by loops, branches, and fusions, whose instructions are one operation of the device.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

WIDTHS = {"pred": 1.0, "token": 0.0, "s4": 0.5, "u4": 0.5, "c64": 8.0, "c128": 16.0}
"""Bytes of the element types whose name does not end its bits: all others do, as bf16 and f8e4m3 (the first number)."""

_SHAPE = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](\{[^{}]*\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')


@dataclass(frozen=True)
class Shape:
    """An array: its element type, its lengths, and whether it is in a fast memory beside the main one (TPU: S(1))."""

    kind: str
    dims: tuple[int, ...]
    fast: bool = False

    @property
    def size(self) -> int:
        """How many elements."""
        count = 1
        for dim in self.dims:
            count *= dim
        return count

    @property
    def bytes(self) -> float:
        """How many bytes."""
        if self.kind in WIDTHS:
            return self.size * WIDTHS[self.kind]
        bits = re.search(r"\d+", self.kind)
        return self.size * int(bits[0]) / 8 if bits else 0.0


@dataclass(frozen=True)
class Instruction:
    """`name = shapes opcode(operands), attributes`; a tuple has several shapes, one array has one."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    inside: str = field(repr=False)
    """The text between its parentheses."""
    attributes: str = field(repr=False)
    is_root: bool = False

    @property
    def op_name(self) -> str:
        """Which operation of the source it is from; "" where the compiler does not tell."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def called(self) -> list[str]:
        """The computations that it calls, but for the condition of a loop."""
        branches = _BRANCHES.search(self.attributes)
        return _CALLED.findall(self.attributes) + (re.findall(r"[\w.\-]+", branches[1]) if branches else [])

    @property
    def cycles(self) -> int | None:
        """The compiler's own estimate of it, in cycles of a TPU's clock; None where there is none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Program:
    """Computations by name."""

    computations: dict[str, list[Instruction]]
    entry: str

    @cached_property
    def named(self) -> dict[str, dict[str, Instruction]]:
        """Computation -> name of an instruction -> the instruction."""
        return {name: {i.name: i for i in body} for name, body in self.computations.items()}

    def executed(self) -> Iterator[tuple[str, Instruction, float]]:
        """The operations of the device, as (computation, instruction, how often in a run of the program); what is in
        a fusion is one with it. Each branch of a condition counts whole: of a step, one does the work and one none.
        """
        yield from self._executed(self.entry, 1.0)

    def _executed(self, computation: str, times: float) -> Iterator[tuple[str, Instruction, float]]:
        for instruction in self.computations[computation]:
            yield computation, instruction, times
            for name, share in self.runs(instruction):
                yield from self._executed(name, times * share)

    def runs(self, instruction: Instruction) -> list[tuple[str, float]]:
        """The computations that an instruction executes as operations of their own, and how often each."""
        called = [name for name in instruction.called if name in self.computations]
        if instruction.opcode == "while":
            return [(name, self.trips(instruction) or 1) for name in called]
        return [(name, 1.0) for name in called] if instruction.opcode in ("call", "conditional", "async-start") else []

    def trips(self, loop: Instruction) -> int | None:
        """How often the body of a `while` is executed: as the compiler notes it, else the constant that its condition
        compares with; None where neither is there.
        """
        noted = _TRIPS.search(loop.attributes)
        if noted:
            return int(noted[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        body = self.computations.get(condition[1], []) if condition else []
        limits = [int(i.inside) for i in body if i.opcode == "constant" and i.inside.isdecimal()]
        return max(limits) if limits else None

    def unknown_loops(self) -> int:
        """How many loops do not tell how long they are; their bodies count once."""
        return sum(i.opcode == "while" and self.trips(i) is None for _, i, _ in self.executed())


def parse(text: str) -> Program:
    """Raises ValueError for a text that is no program."""
    computations: dict[str, list[Instruction]] = {}
    entry, body = "", list[Instruction]()
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            body = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        elif line.startswith("  ") and " = " in line:
            body.append(_instruction(line.strip()))
    if not entry:
        raise ValueError("the text of a compiled program has no ENTRY")
    return Program(computations, entry)


def shapes(text: str) -> tuple[Shape, ...]:
    """The arrays of a shape as HLO writes it, from the left."""
    found = []
    for kind, dims, layout in _SHAPE.findall(text):
        lengths = tuple(int(dim.lstrip("<=")) for dim in dims.split(",") if dim)
        found.append(Shape(kind, lengths, fast="S(1)" in layout))
    return tuple(found)


def _instruction(line: str) -> Instruction:
    left, _, right = line.partition(" = ")
    shape, rest = _until(right, " ")
    opcode, _, rest = rest.strip().partition("(")
    inside, attributes = _until(rest, ")")
    return Instruction(
        name=left.removeprefix("ROOT ").lstrip("%"),
        opcode=opcode,
        shapes=shapes(shape),
        operands=tuple(re.findall(r"%([\w.\-]+)", inside)),
        inside=inside,
        attributes=attributes,
        is_root=left.startswith("ROOT "),
    )


def _until(text: str, end: str) -> tuple[str, str]:
    """What is before the first `end` that no bracket encloses, and what is after it."""
    depth = 0
    for place, letter in enumerate(text):
        if depth == 0 and letter == end:
            return text[:place], text[place + 1 :]
        depth += (letter in "([{") - (letter in ")]}")
    return text, ""
