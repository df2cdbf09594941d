"""Measurements of probes along training: which there are, how each is made and kept."""

import math
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distilljax import devices
from distilljax.probes import Point, Probe
from distilljax.probes.base import Source
from distilljax.types import Estimate, InputError, Key, Params
from experiments.dynamics.setting import Setting
from experiments.lab.kept import Lines, digest


class Series(NamedTuple):
    """One curve: a probe on a set in one run; a `Cell` of its measurements."""

    run: int
    probe: str
    set: str

    @property
    def identity(self) -> str:
        """A name of its own."""
        return f"{self.run}: {self.kind}"

    @property
    def kind(self) -> str:
        """Measurements of one probe on one set cost alike."""
        return f"{self.probe} on {self.set}"

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"run {self.run}, {self.kind}"


class Measurements:
    """The measurements of all curves, kept one by one.

    Attributes:
      at: probe -> the iterations it looks at.
      series: all curves.
    """

    def __init__(
        self,
        path: pathlib.Path,
        settings: Mapping[str, Any],
        setting: Setting,
        at: Mapping[str, Sequence[int]],
        runs: int,
    ):
        """Reads the file; it is left with these measurements and no others.

        Args:
          path: of the file.
          settings: that identify the command, see `identity_of`.
          setting: what is looked at.
          at: see the attributes.
          runs: number of networks.
        """
        self.at = at
        self.series = [
            Series(run, probe, name)
            for run in range(runs)
            for probe in at
            for name in setting.sets
        ]
        self._identities = {
            (series, i): digest(
                [
                    settings,
                    *series,
                    i,
                    setting.fingerprints[series.set],
                    setting.trained_on,
                ]
            )
            for series in self.series
            for i in at[series.probe]
        }
        self._lines = Lines(path, self._identities.values())

    def missing(self, series: Series) -> list[int]:
        """Returns the iterations at which a curve is still to be measured."""
        identities = self._identities
        return [
            i for i in self.at[series.probe] if identities[series, i] not in self._lines
        ]

    def write(self, series: Series, iteration: int, record: Mapping[str, Any]) -> None:
        """Keeps a measurement."""
        line = {**series._asdict(), "iteration": iteration, **record}
        self._lines.write(self._identities[series, iteration], line)

    def quantities(self, series: Series, iteration: int) -> dict[str, Any]:
        """Returns the quantities that were measured, each as `measure` yields it."""
        return self._lines[self._identities[series, iteration]]["quantities"]

    def seconds(self) -> float:
        """Returns the time that all measurements took."""
        kept = (self._lines[identity] for identity in self._identities.values())
        return sum(line["seconds"] for line in kept)


class Program(NamedTuple):
    """A probe, compiled."""

    probe: Probe
    init: Callable[..., Any]
    measure: Callable[..., Any]
    mesh: Mesh | None

    @classmethod
    def of(cls, probe: Probe, mesh: Mesh | None) -> "Program":
        """Compiles when it is first called; the probe is one of this mesh."""
        init, measure = devices.jit(probe.init, mesh), devices.jit(probe.measure, mesh)
        return cls(probe, init, measure, mesh)


def measure(
    program: Program,
    key: Key,
    params: Callable[[int], Params],
    looked_at: tuple[Source, Source],
    at: Sequence[int],
    missing: Sequence[int],
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the missing measurements of a curve, in order.

    A probe compares with the first and the last point alone, so a curve that was cut goes
    on from those two.

    Args:
      program: the probe.
      key: one for all points.
      params: iteration -> parameters.
      looked_at: the set and the reference, as the probe selects them.
      at: iterations of the whole curve.
      missing: those to measure.

    Raises:
      InputError: a quantity is NaN.
    """

    def point(index: int) -> Point:
        elapsed = at[index] - at[index - 1] if index else 0
        made = Point(params(at[index]), jnp.asarray(elapsed, jnp.float32))
        return devices.everywhere(made, program.mesh)

    key, looked_at = devices.everywhere((key, looked_at), program.mesh)

    state, last = None, None
    for index, iteration in enumerate(at):
        if iteration not in missing:
            continue
        began = time.perf_counter()
        if state is None:
            state = program.init(key, point(0), *looked_at)
        if index and last != index - 1:
            state, _ = program.measure(key, state, point(index - 1), *looked_at)
        state, found = program.measure(key, state, point(index), *looked_at)
        last = index
        found = jax.device_get(found)
        for name, quantity in found.items():
            if np.isnan(quantity.value).any():
                raise InputError(
                    f"{name} ({quantity.of}) is not a number at iteration {iteration}; the "
                    "loss or its derivatives hold NaN there: lower --lr, or look for NaN "
                    "in the data. Earlier measurements are kept"
                )
        yield (
            iteration,
            {
                "seconds": time.perf_counter() - began,
                "quantities": {name: _plain(one) for name, one in found.items()},
            },
        )


def _plain(estimate: Estimate) -> dict[str, Any]:
    """Returns numbers that JSON can hold; what is not finite becomes null."""

    def plain(x: Any) -> Any:
        array = np.asarray(x, np.float64)
        if array.ndim:
            return [plain(row) for row in array]
        return float(array) if math.isfinite(array) else None

    return {
        "value": plain(estimate.value),
        "standard_error": plain(estimate.standard_error),
        "num_probes": int(estimate.num_probes),
        "of": estimate.of,
    }
