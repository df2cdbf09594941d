"""Networks on a distilled set and on all but one of its images, trained in pieces."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distilljax import data, devices
from distilljax.analysis import leave_one_out
from distilljax.analysis.leave_one_out import Retrained
from distilljax.training.evaluation import PROTOCOLS
from distilljax.types import Array, Batch, InputError, Key, Model, RealSet
from experiments.lab.kept import Arrays, digest
from experiments.lab.progress import CellProgress
from experiments.lab.sets import Named

PROTOCOL = "study"


class Problem(NamedTuple):
    """Training and test data of all networks."""

    named: Named
    loaded: data.Dataset
    model: Model
    network: Mapping[str, Any]  # settings of the model
    batch: Batch
    test: RealSet
    test_positions: np.ndarray  # i[t], in the test split
    keys: Key  # key[s]
    digest: str  # SHA-256 of data, preprocessing and set

    def test_batch(self) -> Batch:
        """Returns the test images, preprocessed, with one-hot labels."""
        labels = jax.nn.one_hot(self.test.labels, self.loaded.num_classes)
        return Batch(self.test.transform(self.test.images), labels)


class Piece(NamedTuple):
    """Networks that are trained in one dispatch, and kept together."""

    name: str  # of the file that it is kept in
    networks: range  # positions among all networks
    identity: str  # SHA-256 of all that they depend on
    kind: str = "network"

    @property
    def title(self) -> str:
        """Name in progress lines."""
        return f"networks {self.networks[0]} to {self.networks[-1]}"


def _pieces(
    problem: Problem,
    members: np.ndarray,
    keys: Key,
    most: int,
    computed: list[int],
    prefix: str,
) -> list[Piece]:
    """Returns the pieces of all networks, at most `most` in each."""
    num = len(members)
    size = min(most, num)
    settings = [problem.digest, problem.network, PROTOCOL, *computed, size]
    arrays = [problem.test_positions, jax.random.key_data(keys), members]
    shared = digest(settings, arrays)
    return [
        Piece(
            f"{prefix}{number}",
            range(first, min(first + size, num)),
            digest([shared, first, num]),
        )
        for number, first in enumerate(range(0, num, size))
    ]


class _Store:
    """The finished pieces of a working directory."""

    def __init__(self, workdir: pathlib.Path):
        self._arrays = Arrays(workdir / "pieces")

    def read(self, piece: Piece) -> Retrained | None:
        found = self._arrays.read(piece.name, piece.identity, Retrained._fields)
        if found is None:
            return None
        return Retrained(*(jnp.asarray(found[name]) for name in Retrained._fields))

    def write(self, piece: Piece, networks: Retrained) -> None:
        self._arrays.write(piece.name, piece.identity, **networks._asdict())


def retrained(
    problem: Problem,
    workdir: pathlib.Path,
    *,
    piece: int,
    together: int,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Retrained:
    """Returns the networks of leave-one-out, in the order of `leave_one_out.pairs`.

    See `trained_on`.
    """
    num = problem.batch.labels.shape[0]
    keys, left_out = leave_one_out.pairs(problem.keys, num)
    members = np.arange(num) != np.asarray(left_out)[:, None]
    return trained_on(
        problem,
        workdir,
        keys,
        members,
        "",
        piece=piece,
        together=together,
        chunk=chunk,
        mesh=mesh,
    )


def trained_on(
    problem: Problem,
    workdir: pathlib.Path,
    keys: Key,
    members: np.ndarray,
    prefix: str,
    *,
    piece: int,
    together: int,
    chunk: int | None = None,
    mesh: Mesh | None = None,
) -> Retrained:
    """Returns a network for each pair of a key and a subset of the images.

    Args:
      problem: the data.
      workdir: where finished pieces are kept.
      keys: key[m].
      members: bool[m, n].
      prefix: of the names of the pieces.
      piece: networks in a piece.
      together: networks trained side by side.
      chunk: test images that each of them predicts at a time; None: as the device has it.
      mesh: devices that share the networks of a piece; None for one.

    Raises:
      InputError: a network whose losses are not finite.
    """
    num = keys.shape[0]
    computed = [together] if chunk is None else [together, chunk]
    pieces = _pieces(problem, members, keys, piece, computed, prefix)
    size = len(pieces[0].networks)

    def train(keys: Key, members: Array, batch: Batch, test: RealSet) -> Retrained:
        return leave_one_out.retrain_on(
            keys,
            members,
            problem.model,
            batch,
            test,
            PROTOCOLS[PROTOCOL],
            together=together,
            chunk=chunk,
            mesh=mesh,
        )

    program = devices.jit(train, mesh)
    fixed = devices.everywhere((problem.batch, problem.test), mesh)
    store = _Store(workdir)
    held = {one.name: found for one in pieces if (found := store.read(one)) is not None}
    missing = [one for one in pieces if one.name not in held]
    if done := num - sum(len(one.networks) for one in missing):
        print(f"{done} of {num} networks were trained before, in {workdir}")
    units = [len(one.networks) for one in missing]
    progress = CellProgress(missing, "network", units, noun="piece")
    for one in missing:
        # The last piece is filled up, so that one program serves all of them.
        chosen = np.arange(one.networks.start, one.networks.start + size) % num
        began = time.perf_counter()
        given = devices.everywhere((keys[chosen], members[chosen]), mesh)
        trained = jax.device_get(program(*given, *fixed))
        trained = Retrained(*(x[: len(one.networks)] for x in trained))
        if not np.isfinite(trained.losses).all():
            raise InputError(
                "a network's test loss is not finite: training on this set diverged under "
                f"the protocol `{PROTOCOL}`"
            )
        store.write(one, trained)
        held[one.name] = trained
        progress.trained(one, len(one.networks), time.perf_counter() - began)
        progress.finished(one, "")
    parts = [held[one.name] for one in pieces]
    return jax.tree.map(lambda *part: jnp.concatenate(part), *parts)
