"""The store of expert trajectories: a directory that is filled while experts are trained.

`trajectories.npy` is an array [experts, epochs + 1, parameters], of which only the rows
that are asked for are read; bfloat16 is kept as uint16 bits, since .npy has no name for
it. `experts.json` describes the experts, and holds how many rows of each are there, with
their checksums: a row counts only once it is on the disk, so a process killed at any moment
leaves a store that tells the truth, and a row that has changed since is refused.
"""

import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import distilljax
from distilljax import processes
from distilljax.core.parameters import Trajectories
from distilljax.data import stored
from distilljax.disk.files import advice, read_json, write_json
from distilljax.types import Array, InputError, Transform

FORMAT = 2  # 1 had no checksums
DESCRIBED = "experts.json"
DATA = "trajectories.npy"
DTYPES: Mapping[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": jnp.bfloat16,
}


class NewerError(InputError):
    """Experts of a format that is newer than this library."""


class Description(NamedTuple):
    """Description of the experts of a store; all fields are JSON-serialisable.

    Attributes:
      num_experts: number of experts.
      num_epochs: rows of an expert without the first, its initialisation.
      num_params: parameters of an expert, p.
      dataset: name, source, fingerprint.
      preprocess: see `describe_transform`.
      held_out: training images per class held out from the experts.
      split_seed: seed of the held-out split.
      model: name, config.
      recipe: training recipe.
      seed: seed of the PRNG key.
    """

    num_experts: int
    num_epochs: int
    num_params: int
    dataset: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    held_out: int
    split_seed: int
    model: Mapping[str, Any]
    recipe: Mapping[str, Any]
    seed: int


def describe_transform(
    transform: Transform, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Returns a description of a preprocessing for comparison by `Store.check`.

    >>> from distilljax.data import preprocess
    >>> described = trajectories.describe_transform(preprocess.Identity(), (8, 8, 1))
    >>> sorted(described)
    ['kind', 'probe', 'sha256']

    Args:
      transform: the preprocessing.
      image_shape: shape of one image, (h, w, c).

    Returns:
      `kind`; `sha256` of its arrays; and `probe`, eight sums of its output for a fixed
      noise image. The probe is compared if the digests differ: ZCA fitted to the same
      images on two machines differs in its last bits.
    """
    kind, arrays = stored.to_arrays(transform)
    digest = hashlib.sha256(kind.encode())
    for name, array in sorted(arrays.items()):
        values = np.ascontiguousarray(array)
        digest.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1, *image_shape), dtype=np.uint8)
    seen = np.asarray(transform(jnp.asarray(noise)), np.float64).ravel()
    probe = [float(part.sum()) for part in np.array_split(seen, 8)]
    return {"kind": kind, "sha256": digest.hexdigest(), "probe": probe}


def size_estimate(
    num_experts: int, num_epochs: int, num_params: int, dtype: str = "float32"
) -> int:
    """Returns the number of bytes on disk.

    >>> trajectories.size_estimate(num_experts=2, num_epochs=3, num_params=10)
    320
    """
    return num_experts * (num_epochs + 1) * num_params * np.dtype(DTYPES[dtype]).itemsize


def create(
    path: pathlib.Path | str, description: Description, dtype: str = "float32"
) -> "Store":
    """Creates an empty store in the directory `path`, which is created if needed.

    >>> described = trajectories.Description(
    ...     num_experts=2, num_epochs=3, num_params=10, dataset={}, preprocess={},
    ...     held_out=5, split_seed=0, model={}, recipe={}, seed=0)
    >>> store = trajectories.create("experts", described)
    >>> store.complete.tolist()
    []

    Args:
      path: the directory; it may hold other files.
      description: description of the experts.
      dtype: storage type of parameters: float32, float16 or bfloat16.

    Raises:
      InputError: a store exists already, it cannot be written, or an unknown dtype.
    """
    path = pathlib.Path(path)
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
    if (path / DESCRIBED).exists():
        raise InputError(f"{path} holds experts already; choose another directory")
    size = size_estimate(*description[:3], dtype)
    shape = (description.num_experts, description.num_epochs + 1, description.num_params)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with (path / DATA).open("wb") as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(_on_disk(dtype)),
                "fortran_order": False,
                "shape": shape,
            }
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + size)
            os.fsync(file.fileno())
        rows_done = np.zeros(description.num_experts, int)
        checksums = np.zeros(
            (description.num_experts, description.num_epochs + 1), np.int64
        )
        store = Store(path, description, dtype, rows_done, checksums)
        store._record()
    except OSError as error:
        raise InputError(
            f"{path}: experts cannot be kept there ({error.strerror}); {advice(error)}"
        ) from None
    return store


def open(path: pathlib.Path | str) -> "Store":
    """Opens the store in the directory `path`.

    >>> described = trajectories.Description(
    ...     num_experts=2, num_epochs=3, num_params=10, dataset={}, preprocess={},
    ...     held_out=5, split_seed=0, model={}, recipe={}, seed=0)
    >>> store = trajectories.create("more_experts", described)
    >>> trajectories.open("more_experts").description == described
    True

    Raises:
      NewerError: it is of a newer format.
      InputError: it is missing, damaged or truncated.
    """
    path = pathlib.Path(path)
    described = path / DESCRIBED
    try:
        held = read_json(described)
        if (number := held["format"]) not in range(1, FORMAT + 1):
            newer = isinstance(number, int) and number > FORMAT
            raise (NewerError if newer else InputError)(
                f"{path}: format {number!r} of experts is none that this library reads "
                f"(1 to {FORMAT}); upgrade distilljax"
            )
        description = Description(**held["description"])
        for name in ("num_experts", "num_epochs", "num_params"):
            _whole(getattr(description, name), name)
        dtype = held["dtype"]
        rows_done = np.array([_whole(n, "rows_done") for n in held["rows_done"]], int)
        itemsize = np.dtype(DTYPES[dtype]).itemsize
        num_rows = description.num_epochs + 1
        if rows_done.shape != (description.num_experts,):
            raise ValueError(f"rows_done is of {rows_done.size} experts")
        if ((rows_done < 0) | (rows_done > num_rows)).any():
            raise ValueError(f"rows_done lies outside 0..{num_rows}")
        checksums = None
        if held["format"] > 1:
            listed = held["checksums"]
            if [len(row) for row in listed] != [num_rows] * description.num_experts:
                raise ValueError("checksums are not one of each row")
            checksums = np.array(
                [[_whole(one, "a checksum") for one in row] for row in listed], np.int64
            ).reshape(description.num_experts, num_rows)
    except FileNotFoundError:
        raise InputError(
            f"{path}: there are no experts ({DESCRIBED} is missing); train some with "
            f"python -m experiments.train_experts --workdir={path}"
        ) from None
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{described} is damaged ({error}); delete {path} and train the experts again"
        ) from None
    store = Store(path, description, dtype, rows_done, checksums)
    size = size_estimate(*description[:3], dtype)
    try:
        with (path / DATA).open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            held_bytes = os.fstat(file.fileno()).st_size - file.tell()
        if (*shape, kind.itemsize) != (*store.shape, itemsize):
            raise ValueError(f"it is {kind}{list(shape)}")
        if held_bytes != size:
            raise ValueError(f"it holds {held_bytes:,} bytes of {size:,}")
    except FileNotFoundError:
        why = f"{DATA} is missing"
    except (OSError, ValueError) as error:
        why = f"{DATA} is damaged or truncated: {error}"
    else:
        return store
    raise InputError(f"{path}: {why}; delete {path} and train the experts again")


class Store:
    """Trajectories on disk; returned by `create` and `open`.

    Attributes:
      path: the directory.
      description: description of the experts.
      dtype: storage type of parameters.
      shape: number of experts, of rows per expert (epochs + 1), of parameters.
      rows_done: i64[experts], number of rows of each expert on disk, from epoch 0.
    """

    def __init__(
        self,
        path: pathlib.Path,
        description: Description,
        dtype: str,
        rows_done: np.ndarray,
        checksums: np.ndarray | None,
    ):
        self._checksums = checksums  # i64[experts, rows], CRC-32; None of format 1
        self.path, self.description, self.dtype = path, description, dtype
        self.shape = (
            description.num_experts,
            description.num_epochs + 1,
            description.num_params,
        )
        self.rows_done = rows_done

    @property
    def complete(self) -> np.ndarray:
        """Indices of the experts whose training is complete, i64[...]."""
        return np.flatnonzero(self.rows_done == self.shape[1])

    @processes.once
    def write(self, first_expert: int, epoch: int, params: Array | np.ndarray) -> None:
        """Writes the parameters of consecutive experts after `epoch`.

        The epochs of an expert must be written in order; rewriting an epoch, as a resumed
        run does, discards the later ones.

        Args:
          first_expert: index of the first expert.
          epoch: 0 for the initialisations.
          params: f32[m, p].

        Raises:
          ValueError: rows of the wrong shape or outside the store, or a skipped epoch.
          InputError: parameters that are not finite or exceed the range of the dtype; or
            the disk is full.
        """
        values = np.asarray(params, np.float32)
        num, num_rows, size = self.shape
        last = first_expert + len(values)
        if values.ndim != 2 or values.shape[1] != size:
            raise ValueError(f"params are {list(values.shape)}, not [m, {size}]")
        if not (0 <= first_expert < last <= num and 0 <= epoch < num_rows):
            raise ValueError(
                f"experts {first_expert}..{last - 1} at epoch {epoch} lie outside "
                f"{num} experts of {num_rows - 1} epochs"
            )
        if (self.rows_done[first_expert:last] < epoch).any():
            raise ValueError(f"epoch {epoch} of experts {first_expert}.. leaves a gap")
        with np.errstate(over="ignore"):
            kept = values.astype(DTYPES[self.dtype])
        self._check_finite(values, kept, first_expert, epoch)
        try:
            if (self.rows_done[first_expert:last] > epoch).any():
                self.rows_done[first_expert:last] = epoch
                self._record()
            with (self.path / DATA).open("r+b") as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                start = file.tell()
                for i, row in enumerate(kept):
                    at = ((first_expert + i) * num_rows + epoch) * size
                    file.seek(start + at * kept.itemsize)
                    file.write(row.tobytes())
                    if self._checksums is not None:
                        self._checksums[first_expert + i, epoch] = zlib.crc32(row.tobytes())
                file.flush()
                os.fsync(file.fileno())
            self.rows_done[first_expert:last] = epoch + 1
            self._record()
        except OSError as error:
            raise InputError(
                f"{self.path}: experts cannot be written ({error.strerror}); "
                f"{advice(error)}, then run the same command again"
            ) from None

    def read(
        self, experts: int | slice, first_epoch: int = 0, last_epoch: int | None = None
    ) -> Trajectories:
        """Reads parameters of complete experts, `first_epoch` to `last_epoch` inclusive.

        Only these rows are read, in the dtype of the store.

        Args:
          experts: number of experts, the first complete ones; or a slice of expert indices,
            all of which must be complete.
          first_epoch: 0 is the initialisation.
          last_epoch: None for the last epoch of the store.

        Raises:
          InputError: too few complete experts, epochs that the store does not have, or a
            row whose checksum differs.
        """
        num, num_rows, size = self.shape
        last_epoch = num_rows - 1 if last_epoch is None else last_epoch
        if not 0 <= first_epoch <= last_epoch < num_rows:
            raise InputError(
                f"{self.path}: epochs {first_epoch}..{last_epoch} are wanted, and its "
                f"experts have 0..{num_rows - 1}; train longer experts, or ask for earlier "
                "epochs"
            )
        complete = self.complete
        if isinstance(experts, slice):
            chosen = np.arange(num)[experts]
            absent = np.setdiff1d(chosen, complete)
            if absent.size or not chosen.size:
                what = f"expert {absent[0]} is" if absent.size else "experts are"
                raise InputError(
                    f"{self.path}: {what} not complete, {len(complete)} of {num} are; let "
                    "train_experts finish, or ask for others"
                )
        else:
            if not 1 <= experts <= len(complete):
                raise InputError(
                    f"{self.path}: {experts} experts are wanted, and {len(complete)} of "
                    f"{num} are complete; let train_experts finish, or ask for fewer"
                )
            chosen = complete[:experts]
        held = np.load(self.path / DATA, mmap_mode="r", allow_pickle=False)
        rows = np.empty((len(chosen), last_epoch - first_epoch + 1, size), held.dtype)
        for i, expert in enumerate(chosen):
            rows[i] = held[expert, first_epoch : last_epoch + 1]
            self._check_rows(int(expert), first_epoch, rows[i])
        params = jnp.asarray(rows.view(DTYPES[self.dtype]))
        return Trajectories(params, jnp.asarray(first_epoch, jnp.int32))

    def verify(self) -> None:
        """Reads all rows that are done.

        Raises:
          InputError: a row whose checksum differs.
        """
        held = np.load(self.path / DATA, mmap_mode="r", allow_pickle=False)
        for expert, done in enumerate(self.rows_done):
            for epoch in range(done):
                self._check_rows(expert, epoch, held[expert, epoch : epoch + 1])

    def check(
        self, wanted: Mapping[str, Any], missing: Mapping[str, Any] | None = None
    ) -> None:
        """Checks that the experts match a description.

        Args:
          wanted: expected fields of `Description`; a nested mapping may be partial, such as
            `{"model": {"name": "convnet"}}`.
          missing: values of fields that the description of an older version lacks.

        Raises:
          InputError: a mismatch; the message names all of them.
        """
        there = self.description._asdict()
        wrong = [
            f"{name} is {_shown(theirs)} there and {_shown(ours)} is wanted"
            for name, theirs, ours in _mismatches(there, wanted, missing or {})
        ]
        if wrong:
            raise InputError(
                f"the experts in {self.path} are others: {'; '.join(wrong)}; change these "
                "settings, or train experts with them in another directory"
            )

    def _check_finite(
        self, values: np.ndarray, kept: np.ndarray, first_expert: int, epoch: int
    ) -> None:
        bad = ~np.isfinite(kept.astype(np.float32)).all(axis=1)
        if not bad.any():
            return
        i = int(np.flatnonzero(bad)[0])
        which = f"expert {first_expert + i} at epoch {epoch}"
        if np.isfinite(values[i]).all():
            raise InputError(
                f"{which} has a parameter of {np.abs(values[i]).max():.3g}, beyond what "
                f"{self.dtype} holds; keep experts as float32 or bfloat16"
            )
        raise InputError(
            f"{which} has parameters that are not finite; lower its learning rate"
        )

    def _check_rows(self, expert: int, first_epoch: int, rows: np.ndarray) -> None:
        if self._checksums is None:
            return
        for epoch, row in enumerate(rows, first_epoch):
            if zlib.crc32(row.tobytes()) != self._checksums[expert, epoch]:
                raise InputError(
                    f"{self.path / DATA} is damaged: the checksum of expert {expert} at "
                    f"epoch {epoch} differs; delete {self.path} and train the experts again"
                )

    def _record(self) -> None:
        write_json(
            self.path / DESCRIBED,
            {
                "format": 1 if self._checksums is None else FORMAT,
                "distilljax": distilljax.__version__,
                "description": self.description._asdict(),
                "dtype": self.dtype,
                "rows_done": self.rows_done.tolist(),
                **(
                    {}
                    if self._checksums is None
                    else {"checksums": self._checksums.tolist()}
                ),
            },
        )


def _whole(value: Any, name: str) -> int:
    """Returns a count that a file holds.

    Raises:
      ValueError: it is none, or beyond what an array can have.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**40:
        raise ValueError(f"{name} is {str(value)[:20]}")
    return value


def _on_disk(dtype: str) -> np.dtype:
    return np.dtype(np.uint16 if dtype == "bfloat16" else DTYPES[dtype])


def _mismatches(
    there: Mapping[str, Any],
    wanted: Mapping[str, Any],
    missing: Mapping[str, Any],
    prefix: str = "",
) -> Iterator[tuple[str, Any, Any]]:
    """Yields the dotted name, actual and expected value of each mismatch."""
    for name, ours in wanted.items():
        theirs = there.get(name, missing.get(name))
        if prefix + name == "preprocess":
            if not _same_transform(theirs, ours):
                yield "preprocessing", theirs, ours
        elif isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from _mismatches(theirs, ours, missing.get(name, {}), f"{prefix}{name}.")
        elif _plain(theirs) != _plain(ours):
            yield prefix + name, theirs, ours


def _same_transform(a: Any, b: Any) -> bool:
    if not isinstance(a, Mapping) or a.get("kind") != b["kind"]:
        return False
    if a.get("sha256") == b["sha256"]:
        return True
    try:
        theirs, ours = (np.asarray(one.get("probe", []), np.float64) for one in (a, b))
    except (TypeError, ValueError):
        return False
    if theirs.shape != ours.shape or not ours.size:
        return False
    return bool(np.abs(theirs - ours).max() <= 1e-3 * max(1.0, np.abs(ours).max()))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "sha256" in value:
        return f"{value.get('kind')} (SHA-256 {str(value['sha256'])[:8]}...)"
    text = str(value)
    is_digest = isinstance(value, str) and len(text) == 64
    return f"{text[:8]}..." if is_digest else repr(value)
