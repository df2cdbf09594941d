"""Reads the text of an optimised XLA program.

`parse` gives computations and instructions with the bytes of their shapes as they are laid
out; `trip_count` gives the passes through a loop. `walk` counts with them.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from distilljax.types import InputError

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_COMMENT = re.compile(r"/\*.*?\*/")
_NAME = re.compile(r"%([\w.\-]+)")


class Shape(NamedTuple):
    """An array of a program.

    Attributes:
      dtype: such as f32.
      dims: lengths of the axes.
      layout: axes from the fastest to the slowest; empty if not stated.
      tile: lengths to which the fastest axes are filled up, slowest of them first.
      space: memory space; 0 is the memory of the device, others lie on the chip.
    """

    dtype: str
    dims: tuple[int, ...]
    layout: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes as laid out, those that only fill up a tile included."""
        dims = list(self.dims)
        for axis, length in zip(self.layout, reversed(self.tile), strict=False):
            dims[axis] = -(-dims[axis] // length) * length
        return -(-math.prod(dims) * _bits(self.dtype) // 8)


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    if not (found := re.match(r"[a-z]+(\d+)", dtype)):
        raise InputError(f"a type that is not known: {dtype}")
    return int(found[1])


def shapes(text: str) -> tuple[Shape, ...]:
    """Returns the arrays of a shape as it is printed, those of a tuple in order."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(_COMMENT.sub("", text)):
        order, _, rest = layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", rest)
        space = re.search(r"S\((\d+)\)", rest)
        found.append(
            Shape(
                dtype,
                _integers(dims.replace("<=", "")),
                _integers(order),
                _integers(tile[1]) if tile else (),
                int(space[1]) if space else 0,
            )
        )
    return tuple(found)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


class Instruction(NamedTuple):
    """An instruction.

    Attributes:
      name: without the percent sign.
      opcode: such as fusion.
      shapes: arrays of the result.
      operands: names of instructions of the same computation.
      literal: the text between the brackets after the opcode.
      attributes: what follows.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    @property
    def op_name(self) -> str:
        """The place in the JAX program; empty if none."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def target(self) -> str:
        """The target of a custom call."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, *attributes: str) -> tuple[str, ...]:
        """Returns the computations that an attribute such as `body` names."""
        names: list[str] = []
        for attribute in attributes:
            one = re.search(rf"\b{attribute}=%([\w.\-]+)", self.attributes)
            many = re.search(rf"\b{attribute}={{([^}}]*)}}", self.attributes)
            if one:
                names.append(one[1])
            elif many:
                names.extend(_NAME.findall(many[1]))
        return tuple(names)


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in order of execution.

    Attributes:
      instructions: name -> instruction.
      root: name of the result.
    """

    instructions: Mapping[str, Instruction]
    root: str

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def users(self, name: str) -> list[tuple[Instruction, int]]:
        """Returns the instructions that read a value, with its place among operands."""
        return [
            (one, place)
            for one in self
            for place, operand in enumerate(one.operands)
            if operand == name
        ]

    def parameter(self, number: int) -> Instruction:
        """Returns a parameter."""
        for one in self:
            if one.opcode == "parameter" and one.literal == str(number):
                return one
        raise InputError(f"there is no parameter {number}")


class Module(NamedTuple):
    """A program.

    Attributes:
      computations: by name.
      entry: name of the first.
      partitions: number of devices.
    """

    computations: Mapping[str, Computation]
    entry: str
    partitions: int


def parse(text: str) -> Module:
    """Reads the text that `compiled.as_text()` gives.

    Raises:
      InputError: a text that is no program.
    """
    computations: dict[str, Computation] = {}
    entry, name, root = "", "", ""
    body: dict[str, Instruction] = {}
    for line in text.splitlines():
        if line.startswith((" ", "\t")) and name and " = " in line:
            one = _instruction(line)
            body[one.name] = one
            if line.lstrip().startswith("ROOT "):
                root = one.name
        elif line.startswith("}") and name:
            computations[name] = Computation(body, root)
            name = ""
        elif line.rstrip().endswith("{") and (found := _NAME.search(line)):
            name, body, root = found[1], {}, ""
            entry = name if line.startswith("ENTRY") else entry
    if not entry:
        raise InputError("the text has no ENTRY: expected that of an optimised program")
    partitions = re.search(r"num_partitions=(\d+)", text)
    return Module(computations, entry, int(partitions[1]) if partitions else 1)


def _instruction(line: str) -> Instruction:
    left, right = line.split(" = ", 1)
    name = left.split()[-1].lstrip("%")
    end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    shape, rest = right[:end], right[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    literal = rest[opening + 1 : closing]
    return Instruction(
        name,
        rest[:opening],
        shapes(shape),
        tuple(_NAME.findall(literal)),
        literal,
        rest[closing + 1 :],
    )


def _closing(text: str, opening: int) -> int:
    depth = 0
    for found in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    raise InputError(f"brackets that do not close: {text[:80]}")


def trip_count(module: Module, inside: Computation, loop: Instruction) -> int | None:
    """Returns the passes through a loop; None if it is known only when the program runs.

    XLA states it on the CPU and on GPUs. Elsewhere it is read from the condition, i <
    limit, where i starts at a constant and grows by a constant.
    """
    stated = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if stated:
        return int(stated[1])
    (condition,) = loop.called("condition")
    (body,) = loop.called("body")
    tested = module.computations[condition]
    compare = _source(tested, tested.root)
    if compare.opcode != "compare" or "direction=LT" not in compare.attributes:
        return None
    counter, limit = (_source(tested, name) for name in compare.operands)
    if counter.opcode != "get-tuple-element" or len(loop.operands) != 1:
        return None
    index = _index(counter)
    first = _constant(inside, _element(inside, loop.operands[0], index))
    stepped = _source(
        module.computations[body],
        _element(module.computations[body], module.computations[body].root, index),
    )
    step = _growth(module, module.computations[body], stepped, index)
    last = (
        _constant(inside, _element(inside, loop.operands[0], _index(limit)))
        if limit.opcode == "get-tuple-element"
        else _constant(tested, limit.name)
    )
    if first is None or last is None or not step:
        return None
    return max(0, -(-(last - first) // step))


_MOVES = ("copy", "bitcast", "copy-done", "copy-start", "convert", "reshape")


def _source(inside: Computation, name: str | None) -> Instruction:
    """Returns the instruction that a value comes from, copies passed over."""
    one = inside[name or inside.root]
    while one.opcode in _MOVES and one.operands:
        one = inside[one.operands[0]]
    return one


def _index(one: Instruction) -> int:
    found = re.search(r"index=(\d+)", one.attributes)
    assert found
    return int(found[1])


def _element(inside: Computation, name: str, index: int) -> str | None:
    one = _source(inside, name)
    return one.operands[index] if one.opcode == "tuple" else None


def _constant(inside: Computation, name: str | None) -> int | None:
    if name is None:
        return None
    one = _source(inside, name)
    whole = re.fullmatch(r"-?\d+", one.literal.strip())
    return int(whole[0]) if one.opcode == "constant" and whole else None


def _growth(
    module: Module, inside: Computation, one: Instruction, index: int
) -> int | None:
    """Returns the constant that is added to element `index` of the carry in a pass."""
    if one.opcode == "fusion" and len(one.operands) <= 2:
        (called,) = one.called("calls")
        within = module.computations[called]
        one = _source(within, within.root)
        inside = within
    if one.opcode != "add":
        return None
    steps = [_constant(inside, name) for name in one.operands]
    found = [step for step in steps if step is not None]
    return found[0] if len(found) == 1 else None
