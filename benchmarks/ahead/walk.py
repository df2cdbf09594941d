"""Counts what an optimised program does: products, memory traffic, kernels, collectives.

Every instruction at the top of a computation that computes or moves something is a kernel;
a fusion is one. Bodies of loops count as often as they are passed through, and of a
condition the dearest branch. XLA's own cost analysis counts the body of a loop once.

Traffic is what a kernel reads and writes in the memory of the device, as laid out: of an
operand that is only sliced the slices, of a result that is updated in place the update, and
nothing of what lies in memory on the chip. Caches are not modelled. FLOPs are those of
matrix products and convolutions, two a multiply-add, those with padded zeros included.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.ahead.hlo import Computation, Instruction, Module, Shape, trip_count

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
    "partition-id", "replica-id", "opt-barrier", "domain", "add-dependency",
}  # fmt: skip
_HINTS = {"AllocateBuffer", "AssumeGatherIndicesInBound", "Sharding"}
_SLICES = {"dynamic-slice", "slice", "gather"}
_MODULE = re.compile(
    r"(?:^|/|\()(Conv|Dense|Normalisation|pool|augment)(?:_\d+)?(?=/|\)|$)"
)
LAYERS = {
    "Conv": "convolution",
    "Dense": "dense",
    "Normalisation": "norm",
    "pool": "pool",
    "augment": "augmentation",
}


class Speed(NamedTuple):
    """What bounds the time of a kernel.

    Attributes:
      flops: FLOP/s of products by precision: `low` for operands of 16 bits, `default` and
        `highest` for float32.
      bandwidth: bytes/s of the memory.
      link: bytes/s that a device sends to the others.
      launch: least seconds of a kernel.
      clock: cycles/s, if XLA states cycles.
    """

    flops: Mapping[str, float]
    bandwidth: float
    link: float
    launch: float
    clock: float | None = None


class Cost(NamedTuple):
    """Sums over kernels.

    Attributes:
      flops: of products.
      bytes: read and written.
      kernels: number.
      seconds: by the roofline.
      cycles: estimated by XLA, where it does.
    """

    flops: float = 0
    bytes: float = 0
    kernels: float = 0
    seconds: float = 0
    cycles: float = 0

    def plus(self, other: "Cost", times: float = 1) -> "Cost":
        """Returns the sum with another, taken `times` times."""
        return Cost(*(a + times * b for a, b in zip(self, other, strict=True)))


class Loop(NamedTuple):
    """A loop of the program.

    Attributes:
      place: where it stands in the JAX program.
      trips: passes; None if known only when the program runs.
      kernels: kernels of a pass.
    """

    place: str
    trips: int | None
    kernels: float


class Count(NamedTuple):
    """What a computation does.

    Attributes:
      total: the sum.
      layers: name of a layer -> its part.
      collectives: kind -> (number, bytes).
      loops: all loops in it, outer ones first.
    """

    total: Cost
    layers: Mapping[str, Cost]
    collectives: Mapping[str, tuple[float, float]]
    loops: tuple[Loop, ...]

    def record(self) -> dict[str, Any]:
        """Returns it as it is written to a file."""
        return {
            **{n: v for n, v in self.total._asdict().items() if n != "bytes"},
            "bytes_moved": self.total.bytes,
            "layers": {name: cost._asdict() for name, cost in self.layers.items()},
            "collectives": {
                kind: {"number": number, "bytes": size}
                for kind, (number, size) in self.collectives.items()
            },
            "loops": [loop._asdict() for loop in self.loops],
        }


def count(module: Module, speed: Speed, unknown_trips: float | None = None) -> Count:
    """Counts a whole program, what one of its devices does.

    Args:
      module: the program.
      speed: of the device.
      unknown_trips: passes to assume through loops that do not state theirs; None for one.
    """
    return _Walker(module, speed, unknown_trips or 1).computation(module.entry)


class _Walker:
    """Counts computations, each once."""

    def __init__(self, module: Module, speed: Speed, unknown: float):
        self.module, self.speed, self.unknown = module, speed, unknown
        self.found: dict[str, Count] = {}

    def computation(self, name: str) -> Count:
        if name not in self.found:
            self.found[name] = self._computation(self.module.computations[name])
        return self.found[name]

    def _computation(self, inside: Computation) -> Count:
        total = Cost()
        layers: dict[str, Cost] = {}
        collectives: dict[str, tuple[float, float]] = {}
        loops: list[Loop] = []
        for one in inside:
            part, times = self._instruction(inside, one)
            if part is None:
                continue
            total = total.plus(part.total, times)
            for layer, cost in part.layers.items():
                layers[layer] = layers.get(layer, Cost()).plus(cost, times)
            for kind, (number, size) in part.collectives.items():
                before = collectives.get(kind, (0.0, 0.0))
                collectives[kind] = before[0] + times * number, before[1] + times * size
            loops.extend(part.loops)
        return Count(total, layers, collectives, tuple(loops))

    def _instruction(
        self, inside: Computation, one: Instruction
    ) -> tuple[Count | None, float]:
        kind = one.opcode.removesuffix("-start")
        if one.opcode == "while":
            (body,) = one.called("body")
            trips, part = trip_count(self.module, inside, one), self.computation(body)
            loop = Loop(one.op_name, trips, part.total.kernels)
            part = part._replace(loops=(loop, *part.loops))
            return part, self.unknown if trips is None else trips
        if one.opcode == "conditional":
            branches = one.called("branch_computations") or one.called(
                "true_computation", "false_computation"
            )
            parts = [self.computation(name) for name in branches]
            return max(parts, key=lambda part: part.total.seconds), 1
        if one.opcode in ("call", "async-start"):
            (called,) = one.called("to_apply") or one.called("calls")
            return self.computation(called), 1
        if one.opcode in _FREE or one.target in _HINTS:
            return None, 1
        if one.opcode.endswith(("-done", "-update")):
            return None, 1
        if kind in COLLECTIVES:
            return self._collective(kind, one), 1
        return self._kernel(inside, one), 1

    def _collective(self, kind: str, one: Instruction) -> Count:
        arrays = [shape for shape in one.shapes if shape.dims or len(one.shapes) == 1]
        if one.opcode.endswith("-start") and kind != "all-reduce":
            arrays = arrays[len(arrays) // 2 :]  # after the operands, the results
        size = sum(shape.bytes for shape in arrays)
        devices = max(2, _group(one, self.module.partitions))
        passes = (2 if kind == "all-reduce" else 1) * (devices - 1) / devices
        seconds = max(self.speed.launch, passes * size / self.speed.link)
        cost = Cost(bytes=2 * size, kernels=1, seconds=seconds, cycles=_cycles(one))
        return Count(cost, {"collectives": cost}, {kind: (1, size)}, ())

    def _kernel(self, inside: Computation, one: Instruction) -> Count:
        products = list(self._products(inside, one))
        traffic = self._traffic(inside, one)
        busy = sum(flops / self.speed.flops[precision] for flops, precision in products)
        seconds = max(busy, traffic / self.speed.bandwidth, self.speed.launch)
        flops = sum(flops for flops, _ in products)
        cost = Cost(flops, traffic, 1, seconds, _cycles(one))
        return Count(cost, {layer(one.op_name): cost}, {}, ())

    def _products(self, inside: Computation, one: Instruction) -> Any:
        """Yields FLOPs and precision of each product of a kernel."""
        if (flops := _flops(inside, one)) is not None:
            yield flops, _precision(inside, one)
        for name in one.called("calls") if one.opcode in ("fusion", "call") else ():
            within = self.module.computations[name]
            for part in within:
                yield from self._products(within, part)

    def _traffic(self, inside: Computation, one: Instruction) -> int:
        read = sum(
            self._read(inside, one, [at for at, n in enumerate(one.operands) if n == name])
            for name in dict.fromkeys(one.operands)
        )
        return read + self._written(inside, one)

    def _read(self, inside: Computation, one: Instruction, places: list[int]) -> int:
        """Returns the bytes that an instruction reads of one value."""
        given = inside[one.operands[places[0]]].shapes
        whole = sum(shape.bytes for shape in given if not shape.space)
        return min(whole, sum(self._of_operand(one, at, whole, given) for at in places))

    def _of_operand(
        self, one: Instruction, place: int, whole: int, given: tuple[Shape, ...]
    ) -> int:
        if one.opcode in _SLICES and place == 0:
            return _scaled(one.shapes, given, whole)
        if one.opcode == "dynamic-update-slice" and place == 0:
            return 0
        if one.opcode == "fusion":
            (called,) = one.called("calls")
            within = self.module.computations[called]
            return self._through(within, within.parameter(place).name, whole, given)
        return whole

    def _through(
        self, within: Computation, name: str, whole: int, given: tuple[Shape, ...]
    ) -> int:
        read = 0
        for user, place in within.users(name):
            if user.opcode in ("bitcast", "get-tuple-element"):
                read += self._through(within, user.name, whole, given)
            else:
                read += self._of_operand(user, place, whole, given)
        return min(read, whole)

    def _written(self, inside: Computation, one: Instruction) -> int:
        if one.opcode == "fusion":
            (called,) = one.called("calls")
            within = self.module.computations[called]
            root = within[within.root]
            names = root.operands if root.opcode == "tuple" else (root.name,)
        else:
            within, names = inside, (one.name,)
        written = 0
        for name, shape in zip(names, _results(one, len(names)), strict=True):
            if not shape.space:
                source = within[name]
                while source.opcode == "bitcast":
                    source = within[source.operands[0]]
                if source.opcode == "dynamic-update-slice":
                    update = within[source.operands[1]].shapes
                    written += _scaled(update, (shape,), shape.bytes)
                else:
                    written += shape.bytes
        if one.opcode == "copy-start":
            return _results(one, 1)[0].bytes * (not _results(one, 1)[0].space)
        return written


def _results(one: Instruction, num: int) -> tuple[Shape, ...]:
    """Returns the arrays that are written; a custom call also names its workspace."""
    if one.opcode in ("custom-call", "copy-start") or num == 1 < len(one.shapes):
        return one.shapes[:num]
    return one.shapes


def _scaled(part: tuple[Shape, ...], given: tuple[Shape, ...], whole: int) -> int:
    """Returns the share of `whole` bytes of an array that a part of it takes up."""
    size = sum(shape.size for shape in given)
    return min(whole, math.ceil(whole * sum(shape.size for shape in part) / max(1, size)))


def _group(one: Instruction, partitions: int) -> int:
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", one.attributes)
    if listed:
        return len(listed[1].split(","))
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", one.attributes)
    return int(iota[1]) if iota else partitions


def _cycles(one: Instruction) -> int:
    found = re.search(r'"estimated_cycles":"(\d+)"', one.attributes)
    return int(found[1]) if found else 0


def layer(op_name: str) -> str:
    """Returns the layer that an instruction belongs to, by its place in the program."""
    found = _MODULE.findall(op_name)
    return LAYERS[found[-1]] if found else "other"


def _precision(inside: Computation, one: Instruction) -> str:
    dtypes = {shape.dtype for n in one.operands[:2] for shape in inside[n].shapes[:1]}
    if dtypes & {"bf16", "f16"}:
        return "low"
    return "highest" if "highest" in one.attributes else "default"


def _flops(inside: Computation, one: Instruction) -> float | None:
    """Returns the FLOPs of a product; None for other instructions."""
    if one.opcode == "dot" or "gemm" in one.target or "matmul" in one.target:
        left = inside[one.operands[0]].shapes[0]
        axes = re.search(
            r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]*)', one.attributes
        )
        contracted = [int(axis) for axis in re.findall(r"\d+", axes[1])] if axes else []
        return 2.0 * one.shapes[0].size * math.prod(left.dims[axis] for axis in contracted)
    if one.opcode == "convolution" or "$conv" in one.target:
        return _convolution(inside, one)
    return None


def _convolution(inside: Computation, one: Instruction) -> float:
    """Returns 2 (pairs of output and kernel positions) batch in out / groups.

    Positions that meet a hole of a dilated input are not counted.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    assert labels, one.name
    first, second = (inside[name].shapes[0] for name in one.operands[:2])
    result = one.shapes[0]
    if one.target.endswith("convBackwardFilter"):
        image, kernel, output = first, result, second
    elif one.target.endswith("convBackwardInput"):
        image, kernel, output = result, second, first
    else:
        image, kernel, output = first, second, result
    del image
    window = _window(one.attributes)
    pairs = 1
    for axis, part in enumerate(window):
        length = output.dims[labels[3].index(str(axis))]
        pairs *= sum(
            (o * part.stride + k * part.rhs_dilate - part.low) % part.lhs_dilate == 0
            for o in range(length)
            for k in range(part.size)
        )
    batch, features = (output.dims[labels[3].index(c)] for c in "bf")
    depth = kernel.dims[labels[2].index("i")]
    return 2.0 * pairs * batch * features * depth


class _Axis(NamedTuple):
    size: int
    stride: int
    low: int
    lhs_dilate: int
    rhs_dilate: int


def _window(attributes: str) -> list[_Axis]:
    found = re.search(r"window=\{([^}]*)\}", attributes)
    if not found:
        return []
    parts = dict(part.split("=") for part in found[1].split())

    def numbers(name: str, default: int) -> list[int]:
        if name not in parts:
            return [default] * len(parts["size"].split("x"))
        return [int(text.split("_")[0]) for text in parts[name].split("x")]

    return [
        _Axis(*one)
        for one in zip(
            numbers("size", 1),
            numbers("stride", 1),
            numbers("pad", 0),
            numbers("lhs_dilate", 1),
            numbers("rhs_dilate", 1),
            strict=True,
        )
    ]
