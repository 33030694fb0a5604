"""What an operation of a compiled program is: of which kind, and where in the model it is from."""

import re
from dataclasses import dataclass
from functools import cached_property

from bertjax.ahead.hlo import Instruction, Program
from bertjax.ahead.traffic import KINDS as EXCHANGES
from bertjax.model.heads import HEADS

KINDS = {
    "attention kernels": "flash attention of a library or of bertjax",
    "matrix products": "and all that is fused with them",
    "exchanges": "between devices, with the waiting for the others",
    "optimizer": "everything behind the gradients, its products too",
    "look-ups": "rows of a table, and gradients that go back into them",
    "random bits": "what dropout drops, and what is fused with it",
    "reductions": "of softmax, norms, losses and biases, and what is fused with them",
    "loops": "and branches, without what is in them",
    "other": "of no known kind",
    "copies and slices": "nothing is computed: layouts, stacks of layers, zeros",
    "elementwise": "all other arithmetic",
}
"""Kinds of operations and what is in each; an operation is of the first that it fits."""

PARTS = {
    **{name: name for name in ("encoder", "embeddings", "attention", "ffn", *HEADS)},
    "Attention": "attention",  # as a function, where layers share it or a scan stacks it
    "FeedForward": "ffn",
}
"""Name of a module in the source of an operation -> the part of the model; what is in no smaller one is `encoder`: the
layers that its scans take and put back."""

_KERNELS = ("tpu_custom_call", "fmha", "triton")
_PRODUCTS = re.compile(r"gemm|matmul|cublas|\$conv")
_LOOPS = ("while", "call", "conditional")
_LOOK_UPS = ("gather", "scatter")
_RANDOM = ("rng", "rng-bit-generator", "rng-get-and-update-state")
_HASH = {"shift-right-logical", "xor"}
"""Both in one operation: bits are mixed (`bertjax.kernels.counter`, Threefry)."""
_REDUCTIONS = ("reduce", "reduce-window")
_MOVES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "bitcast-convert", "fusion", "copy",
          "copy-start", "copy-done", "transpose", "reshape", "slice", "slice-start", "slice-done", "dynamic-slice",
          "dynamic-update-slice", "concatenate", "pad", "reverse", "broadcast", "iota", "async-start", "async-update",
          "async-done"}  # fmt: skip
_NOISE = re.compile(
    r"^(jit\(.*\)|while|body|cond|branch_\d+_fun|closed_call|eval_jaxpr|groups|layers|checkpoint"
    r"|rematted_computation|shard_map|vmap.*)$"
)


@dataclass(frozen=True)
class Spent:
    """Seconds of a step that an operation takes, executed `times` times; `kind`, `part`, `place` as of `Operation`."""

    name: str
    kind: str
    part: str
    place: str
    times: float
    seconds: float


@dataclass(frozen=True)
class Operation:
    """One operation of the device: an instruction, with what is fused into it."""

    program: Program
    computation: str
    instruction: Instruction

    @cached_property
    def kind(self) -> str:
        """The first of KINDS that it fits."""
        parts = self._parts
        opcodes = {part.opcode.removesuffix("-start").removesuffix("-done") for part in parts}
        updates = self.place.startswith("update")
        # What is a scalar is the place of a slice, or the number of a layer.
        arrays = {part.opcode for part in parts if any(shape.dims for shape in part.shapes)}
        fits = {
            "attention kernels": any(map(is_kernel, parts)),
            "matrix products": any(map(_is_product, parts)) and not updates,
            "exchanges": any(map(is_exchange, parts)),
            "optimizer": updates,
            "look-ups": bool(opcodes & set(_LOOK_UPS)),
            "random bits": bool(opcodes & set(_RANDOM)) or opcodes >= _HASH,
            "reductions": bool(opcodes & set(_REDUCTIONS)),
            "loops": self.instruction.opcode in _LOOPS,
            "other": self.instruction.opcode in ("custom-call", "sort"),
            "copies and slices": arrays <= _MOVES,
        }
        return next((name for name, does in fits.items() if does), "elementwise")

    @property
    def place(self) -> str:
        """What it is from: its direction and place in the model; "other" where the compiler does not tell."""
        return label(self._told)

    @property
    def part(self) -> str:
        """The part of a step that it is from, the innermost of PARTS; else `loss`, `exchanges` of the gradients,
        `optimizer`, or `other`: not told.
        """
        path = self._told.op_name.split("/")
        if not any("jvp(" in name for name in path):
            of_update = "exchanges" if self.kind == "exchanges" else "optimizer"  # the gradients, added up
            return of_update if self.place.startswith("update") else "other"
        return next((PARTS[name] for name in reversed(path) if name in PARTS), "loss")

    @cached_property
    def _told(self) -> Instruction:
        """Where the compiler tells what it is from: the last product fused into it, itself, the last thing fused into
        it, else the first that takes it, as a loop does a copy.
        """
        products = [part for part in self._parts if _is_product(part)]
        for part in (*reversed(products), self.instruction, *reversed(self._parts)):
            if part.op_name:
                return part
        taken = [self.instruction]
        for one in taken:  # which grows
            for user in self.program.computations[self.computation]:
                if one.name in user.operands and user.op_name:
                    return user
                if one.name in user.operands and user not in taken:
                    taken.append(user)
        return self.instruction

    @cached_property
    def _parts(self) -> list[Instruction]:
        found = [self.instruction]
        for part in found:  # which grows
            if part.opcode in ("fusion", "fusion-start", "async-start"):
                found += [i for name in part.called for i in self.program.computations.get(name, [])]
        return found


def label(instruction: Instruction) -> str:
    """What an operation is from, its direction and place in the model; "other" where the compiler does not tell."""
    path = instruction.op_name.split("/")
    direction = "backward" if any(part.startswith("transpose(") for part in path) else "forward"
    if not any("jvp(" in part for part in path):
        direction = "update" if path[0] == "jit(train_step)" else ""
    parts = [part for part in path if not _NOISE.match(part) and "jvp(" not in part]
    shown = " ".join([direction, *parts[-3:]]).strip()
    return shown or "other"


def is_kernel(instruction: Instruction) -> bool:
    """Whether it is an attention kernel."""
    return any(name in _target(instruction) for name in _KERNELS)


def is_exchange(instruction: Instruction) -> bool:
    """Whether it is an exchange between chips, or the start or the end of one."""
    return instruction.opcode.removesuffix("-start").removesuffix("-done") in EXCHANGES


def _is_product(instruction: Instruction) -> bool:
    return instruction.opcode in ("dot", "convolution") or _PRODUCTS.search(_target(instruction)) is not None


def _target(instruction: Instruction) -> str:
    """Of the library that a custom call calls; "" for another instruction."""
    found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    return found[1] if found else ""
