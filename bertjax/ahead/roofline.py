"""How long a step takes on chips that are not here: an estimate, operation by operation.

On a TPU the compiler has noted its own estimate beside each operation, in cycles. Elsewhere an operation takes as long
as its bytes need from memory or its products at a rate that has been measured, whichever is longer. Attention kernels
and what chips send to each other are counted in both. Nothing of it is a measurement.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bertjax.ahead.hlo import Instruction, Program
from bertjax.ahead.operations import Operation, Spent, is_exchange, is_kernel, label
from bertjax.ahead.traffic import Collective, collectives, memory_bytes, product_flops
from bertjax.parallel.topology import Topology

KERNEL_SHARE = 0.5
"""Of the peak, what attention kernels are taken to reach: a head of 64 numbers fills half of a TPU's 128 lanes."""
KERNEL_PRODUCTS = 7 / 6
"""Products of a flash kernel, which computes its scores again going backward, over those that are counted."""
LATENCY = 5e-6
"""Seconds that an exchange between chips takes beside its bytes."""


@dataclass(frozen=True)
class Estimate:
    """Of one step on one chip, in seconds."""

    seconds: float
    by: str
    assumptions: tuple[str, ...]
    operations: dict[str, float]
    """By what they are from in the model, the longest first; last, what of the exchanges nothing covers."""
    exchanged: float
    """Of the exchanges between chips, if nothing else went on."""
    exposed: float
    """Of these, what no other work covers."""


@dataclass(frozen=True)
class Timing:
    """A program on a machine, whose chips do `peak` FLOPs a second; its attention kernels multiply `kernel_flops` in a
    step, forward and backward, as `flops_per_token` counts them. `devices` are those of the mesh in its order.
    """

    program: Program
    topology: Topology
    devices: list[Any]
    peak: float
    kernel_flops: float

    def estimate(self) -> Estimate:
        """How long a step takes, and why."""
        found: defaultdict[str, float] = defaultdict(float)
        kernels = False
        for computation, instruction, times in self.program.executed():
            kernels = kernels or is_kernel(instruction)
            seconds = times * self.own(computation, instruction)
            if seconds:
                found[label(instruction)] += seconds
        if kernels:
            found["attention kernels"] += self._kernel_seconds
        exchanged = [(one.times * self.exchange(one), one.times * self.exposed(one)) for one in self.collectives]
        whole, exposed = (sum(column) for column in zip(*exchanged, strict=True)) if exchanged else (0.0, 0.0)
        operations = dict(sorted(found.items(), key=lambda item: -item[1]))
        operations |= {"exchanges, not covered": exposed} if self.collectives else {}
        return Estimate(
            seconds=sum(operations.values()),
            by="the TPU compiler's cycles" if self._counts_cycles else "roofline",
            assumptions=self._assumptions(kernels),
            operations=operations,
            exchanged=whole,
            exposed=exposed,
        )

    def each(self) -> Iterator[Spent]:
        """The same, operation by operation; what of an exchange nothing covers is one by itself."""
        kernels = sum(times for _, instruction, times in self.program.executed() if is_kernel(instruction))
        for computation, instruction, times in self.program.executed():
            one = Operation(self.program, computation, instruction)
            seconds = times * self.own(computation, instruction)
            seconds += times / kernels * self._kernel_seconds if is_kernel(instruction) else 0.0
            if seconds:
                yield Spent(instruction.name, one.kind, one.part, one.place, times, seconds)
        for sent in self.collectives:
            seconds = sent.times * self.exposed(sent)
            one = Operation(self.program, sent.computation, sent.instruction)
            yield Spent(sent.instruction.name, "exchanges", one.part, one.place, sent.times, seconds)

    @cached_property
    def collectives(self) -> list[Collective]:
        """What the chips exchange."""
        return collectives(self.program)

    def own(self, computation: str, instruction: Instruction) -> float:
        """Seconds of one operation, once, without what it calls; 0.0 for kernels and exchanges, which are counted by
        themselves.
        """
        chip = self.topology.chip
        if self._counts_cycles:
            return (instruction.cycles or 0) / chip.clock
        if is_kernel(instruction) or is_exchange(instruction):
            return 0.0
        products = product_flops(self.program, computation, instruction) / (self.peak * chip.matrix_share)
        return max(products, memory_bytes(self.program, computation, instruction) / chip.memory_speed)

    def exchange(self, one: Collective) -> float:
        """Seconds of one exchange, once, if nothing else went on."""
        members = self.topology.places([self.devices[place] for place in one.group])
        return LATENCY + self.topology.link_seconds(one.sent, members)

    def exposed(self, one: Collective) -> float:
        """What of these no work covers that is between its start and its end."""
        if not one.split:
            return self.exchange(one)
        if one.instruction.opcode == "fusion":  # of the compiler's own making, with the work that covers it
            return max(0.0, self.exchange(one) - self.own(one.computation, one.instruction))
        covered, open_ = 0.0, False
        for instruction in self.program.computations[one.computation]:
            if instruction.opcode.endswith("-done") and one.instruction.name in instruction.operands:
                break
            if open_:
                covered += self._whole(one.computation, instruction)
            open_ = open_ or instruction is one.instruction
        return max(0.0, self.exchange(one) - covered)

    def _whole(self, computation: str, instruction: Instruction) -> float:
        """Seconds of an operation with all that it calls."""
        inner = [
            share * self._whole(name, i)
            for name, share in self.program.runs(instruction)
            for i in self.program.computations[name]
        ]
        return self.own(computation, instruction) + sum(inner)

    @cached_property
    def _counts_cycles(self) -> bool:
        return self.topology.chip.clock > 0

    @property
    def _kernel_seconds(self) -> float:
        return self.kernel_flops * KERNEL_PRODUCTS / (self.peak * KERNEL_SHARE)

    def _assumptions(self, kernels: bool) -> tuple[str, ...]:
        chip = self.topology.chip
        told = [f"peak {self.peak / 1e12:,.0f} TFLOP/s a chip"]
        if self._counts_cycles:
            told += [
                f"an operation takes the cycles that the TPU compiler notes, at {chip.clock / 1e9:.2f} GHz;"
                " one without a note takes none"
            ]
        else:
            told += [
                f"an operation takes its bytes at {chip.memory_speed / 1e12:.2f} TB/s, or its products at"
                f" {chip.matrix_share:.0%} of the peak, whichever is longer"
            ]
        if kernels:
            told += [
                f"attention kernels multiply {KERNEL_PRODUCTS:.2f} times what is counted, at {KERNEL_SHARE:.0%} of peak"
            ]
        if self.collectives:
            outer = f", {chip.outer_link / 1e9:.0f} GB/s from host to host" if chip.outer_link else ""
            told += [
                f"exchanges are rings at {chip.link / 1e9:.0f} GB/s one way and link{outer}, {LATENCY * 1e6:.0f} us"
                " each; work between start and end of one covers it"
            ]
        unknown = self.program.unknown_loops()
        told += [f"{unknown} loops do not tell their length, and count once"] if unknown else []
        return (*told, "no time for starting operations, for input, or for waiting for the slowest chip")
