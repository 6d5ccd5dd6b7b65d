"""Memory, traffic and their origins in a compiled program for one chip, read from XLA's dumps.

XLA writes these dumps long before the program's machine code is complete.
"""

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4,
          "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8}
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\](?:\{([\d,]*)(?::([^}]*))?\})?")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][a-z0-9-]*)\((.*)")
_COMPUTATION = re.compile(r"(ENTRY )?%(\S+) \(.*\{$")

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# These operations move no bytes, or their bytes are counted at the matching start operation.
_FREE = ("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "while", "partition-id", "after-all",
         "copy-done", "slice-done", "async-done", "all-gather-done", "all-reduce-done", "collective-permute-done")


@dataclass(frozen=True)
class Instruction:
    """One line of a program: %name = type opcode(operands), attributes."""

    name: str
    type: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose values this one takes."""
        return re.findall(r"%([^\s,)]+)", self.rest.partition(")")[0])

    def attribute(self, pattern: str) -> str:
        """Return the first group of a regular expression in the attributes; "" without a match."""
        match = re.search(pattern, self.rest)
        return match[1] if match else ""

    @property
    def loop(self) -> tuple[str, int] | None:
        """Name of the loop's body and its number of iterations; None if the instruction is not a loop."""
        if self.opcode != "while":
            return None
        return self.attribute(r"body=%([\w.-]+)"), int(self.attribute(r'known_trip_count"?:\{"?n"?:"?(\d+)') or 1)


@dataclass
class Program:
    """An HLO module.

    Attributes:
        computations: name of a computation -> its instructions.
        entry: name of the entry computation.
        lines: id of a stack frame -> source line in the project, for example "models/resnet.py:26".
    """

    computations: dict[str, list[Instruction]] = field(default_factory=dict)
    entry: str = ""
    lines: dict[int, str] = field(default_factory=dict)

    def executed(self, name: str | None = None, times: int = 1) -> Iterator[tuple[Instruction, int]]:
        """Yield the executed instructions and how often each runs. A fusion counts as one instruction."""
        for instruction in self.computations[name or self.entry]:
            yield instruction, times
            if instruction.loop:
                body, trips = instruction.loop
                yield from self.executed(body, times * trips)

    def origin(self, instruction: Instruction) -> str:
        """Return the project's source line of an instruction, or else the name of its operation."""
        line = self.lines.get(int(instruction.attribute(r"stack_frame_id=(\d+)") or 0))
        return line or instruction.attribute(r'op_name="([^"]*)"') or instruction.opcode


def read_program(path: Path) -> Program:
    """Read an HLO module from its text dump."""
    program, current, frames = Program(), [], {"FileNames": {}, "FileLocations": {}, "StackFrames": {}}
    section = None
    with path.open() as lines:
        for line in lines:
            header = _COMPUTATION.match(line)
            if header:
                current = program.computations.setdefault(header[2], [])
                program.entry = header[2] if header[1] else program.entry
            elif line.startswith("  "):
                instruction = _INSTRUCTION.match(line)
                if instruction:
                    current.append(Instruction(*instruction.groups()))
            elif line.strip() in frames:
                section = frames[line.strip()]
            elif line[:1].isdigit() and section is not None:
                number, _, text = line.strip().partition(" ")
                section[int(number)] = text
            else:
                section = None
    program.lines = dict(_own_lines(frames))
    return program


def _own_lines(frames: dict[str, dict[int, str]]) -> Iterator[tuple[int, str]]:
    number = lambda text, name: int(re.search(rf"{name}=(\d+)", text)[1])
    names = {key: text.strip('"') for key, text in frames["FileNames"].items()}

    def line_of(frame: int) -> str | None:
        while frame in frames["StackFrames"]:
            text = frames["StackFrames"][frame]
            location = frames["FileLocations"][number(text, "file_location_id")]
            file = names[number(location, "file_name_id")]
            if "durian_jax/" in file:
                return f"{file.rpartition('durian_jax/')[2]}:{number(location, ' line')}"
            frame = number(text, "parent_frame_id") - 1  # the outermost frame gives 0, which is no frame
        return None

    for frame in frames["StackFrames"]:
        line = line_of(frame)
        if line is not None:
            yield frame, line


def array_bytes(text: str, outside: bool = False) -> int:
    """Return the bytes in memory of all arrays of a type, padded to the tiles of their layout.

    Args:
        text: the type, for example "bf16[8,128]{1,0:T(8,128)}", or a tuple of types.
        outside: count only arrays in the chip's main memory (HBM), not those in its fast memory.
    """
    total = 0
    for kind, sizes, order, tiles in _ARRAY.findall(text):
        if kind not in _BYTES or outside and "S(" in tiles:
            continue
        shape = [int(size) for size in sizes.split(",") if size]
        minor = [shape[int(axis)] for axis in order.split(",") if axis] or shape[::-1]
        tile = re.match(r"T\(([\d,]+)\)", tiles)
        for i, size in enumerate(reversed(tile[1].split(",")) if tile else ()):
            if i < len(minor):
                minor[i] = -(-minor[i] // int(size)) * int(size)
        total += math.prod(minor) * _BYTES[kind]
    return total


def memory_traffic(program: Program) -> int:
    """Return the bytes that the instructions of a step read from and write to HBM.

    The count uses whole operands and results, also where an instruction reads only a part of an operand.
    """
    types = {i.name: i.type for computation in program.computations.values() for i in computation}
    total = 0
    for instruction, times in program.executed():
        if instruction.opcode not in _FREE:
            read = sum(array_bytes(types.get(name, ""), outside=True) for name in instruction.operands)
            total += times * (read + array_bytes(instruction.type, outside=True))
    return total


@dataclass(frozen=True)
class Exchange:
    """One collective operation of a step.

    Attributes:
        kind: one of `COLLECTIVES`.
        bytes: bytes that a chip receives per step, if the data travel around a ring.
        group: the chips that exchange data with the first chip, including it. Chips are numbered in mesh order.
    """

    kind: str
    bytes: int
    group: tuple[int, ...]


def exchanges(program: Program, chips: int) -> list[Exchange]:
    """Return the collective operations of a step.

    An asynchronous operation consists of a start, steps and an end, and each part names it. Only the start counts.
    """
    trips = {}
    for instruction, times in program.executed():
        for called in re.findall(r"(?:calls|to_apply|called_computations)=\{?%([\w.-]+)", instruction.rest):
            trips[called] = times
        if instruction.loop:
            body, rounds = instruction.loop
            trips[body] = times * rounds
    whole, started = {}, {}
    for name, computation in program.computations.items():
        starts = any("AsyncCollectiveStart" in instruction.rest for instruction in computation)
        for instruction in computation:
            if instruction.opcode.removesuffix("-start") in COLLECTIVES:
                exchange = _exchange(instruction, name, chips, trips.get(name, 1))
                key = (exchange, instruction.attribute(r"channel_id=(\d+)"),
                       instruction.attribute(r'op_name="([^"]*)"'))
                (started if starts else whole).setdefault(key, []).append(exchange)
    found = itertools.chain.from_iterable({**whole, **started}.values())
    return [exchange for exchange in found if len(exchange.group) > 1]


def _exchange(instruction: Instruction, computation: str, chips: int, times: int) -> Exchange:
    kind, group = instruction.opcode.removesuffix("-start"), _group(instruction, chips)
    size, share = array_bytes(_exchanged_type(instruction, kind)), (len(group) - 1) / len(group)
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # XLA fuses all-reduce and scatter
    elif kind == "all-reduce":
        size *= 2
    elif kind == "reduce-scatter":
        size *= len(group)
    elif kind == "collective-permute":
        share = 1.0
    return Exchange(kind, int(size * share) * times, group)


def _exchanged_type(instruction: Instruction, kind: str) -> str:
    """Return the type of the exchanged data. The result of a start also holds its operands and flags."""
    if not instruction.opcode.endswith("-start"):
        return instruction.type
    arrays = [match[0] for match in _ARRAY.finditer(instruction.type)]
    return arrays[1] if len(arrays) > 1 and kind != "all-reduce" else arrays[0]


def _group(instruction: Instruction, chips: int) -> tuple[int, ...]:
    """Return the chips that exchange data with the first chip."""
    rest = instruction.rest
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", rest)
    if pairs:
        return tuple(sorted({int(pairs[1]), int(pairs[2])}))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^)]*\)?)\))? \{([^}]*)\}", rest)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        numbers = _numbers(named[2], chips).reshape([int(size) for size in sizes.values()])
        chosen = [name in re.findall(r"'(\w+)'", named[3]) for name in sizes]
        return tuple(numbers[tuple(slice(None) if take else 0 for take in chosen)].ravel().tolist())
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", rest)
    if iota:
        return tuple(_numbers(iota[3], chips).reshape(int(iota[1]), int(iota[2]))[0].tolist())
    explicit = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    return tuple(int(number) for number in explicit[1].split(",")) if explicit else tuple(range(chips))


def _numbers(text: str | None, chips: int) -> np.ndarray:
    """Return all chip numbers in the order of a text like "[16,16]T(1,0)": consecutive, reshaped, transposed."""
    sizes, order = re.match(r"(?:.*<=)?\[([\d,]+)\](?:T\(([\d,]+)\))?", text or f"[{chips}]").groups()
    numbers = np.arange(chips).reshape([int(size) for size in sizes.split(",")])
    return numbers.transpose([int(axis) for axis in order.split(",")]) if order else numbers


def peak_bytes(assignment: Path) -> int:
    """Return the bytes of HBM for a program's arguments and temporaries, from its buffer-assignment dump."""
    with assignment.open() as lines:
        found = (re.match(r"allocation \d+: size (\d+),(.*)", line) for line in lines)
        # Allocations with a colour lie in other memories of the chip.
        return sum(int(allocation[1]) for allocation in found if allocation and " color " not in allocation[2])


@dataclass(frozen=True)
class Buffer:
    """Temporary arrays of equal size, shape and origin.

    Attributes:
        bytes: size of one array.
        count: number of these arrays in a step, not necessarily alive at the same time.
        shape: for example "bf16[8,512,512,128]".
        origin: the project's source line.
    """

    bytes: int
    count: int
    shape: str
    origin: str


def largest_buffers(program: Program, assignment: Path, count: int = 8) -> list[Buffer]:
    """Return the largest temporary arrays, with equal arrays grouped.

    Args:
        program: the program.
        assignment: its buffer-assignment dump.
        count: maximum number of groups.
    """
    origins = {i.name: program.origin(i) for computation in program.computations.values() for i in computation}
    found, temporary = {}, False
    with assignment.open() as lines:
        for line in lines:
            if line.startswith("allocation"):
                temporary = "preallocated-temp" in line and "color" not in line
            value = re.match(r" value: <\d+ ([^\s{]+)\S* @\d+> \(size=(\d+),offset=\d+\): ([^{]*)", line)
            if temporary and value:
                key = (int(value[2]), value[3], origins.get(value[1], ""))
                found[key] = found.get(key, 0) + 1
    largest = itertools.islice(sorted(found.items(), reverse=True), count)
    return [Buffer(size, times, shape, origin) for (size, shape, origin), times in largest]


def short_of(failure: str) -> int:
    """Return the bytes that a program needs, from the compiler's out-of-memory error; 0 if the error has no number."""
    match = re.search(r"\(([\d.]+)([KMG])\) exceeds|Used ([\d.]+)([KMG]) of", failure)
    if match is None:
        return 0
    size, unit = (match[1], match[2]) if match[1] else (match[3], match[4])
    return int(float(size) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit])
