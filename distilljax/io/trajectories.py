"""The store of expert trajectories: a directory that grows while experts are trained.

`trajectories.npy` is an array [experts, epochs + 1, parameters], of which only the rows
that are asked for are read; bfloat16 is kept as uint16 bits, since .npy has no name for
it. `experts.json` says what the experts are, and how many rows of each are there: a row
counts only once it is on the disk, so a process killed at any moment leaves a store that
tells the truth.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import distilljax
from distilljax.core.parameters import Trajectories
from distilljax.data import stored
from distilljax.io.files import write_json
from distilljax.types import Array, InputError, Transform

FORMAT = 1
DESCRIBED = "experts.json"
DATA = "trajectories.npy"
DTYPES: Mapping[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": jnp.bfloat16,
}


class Description(NamedTuple):
    """What the experts of a store are; JSON can hold every field."""

    num_experts: int
    num_epochs: int  # rows of an expert but for the first, its initialisation
    num_params: int
    dataset: Mapping[str, Any]  # name, source, fingerprint
    preprocess: Mapping[str, Any]  # see `describe_transform`
    held_out: int  # training images of each class that the experts never saw
    split_seed: int  # settles which
    model: Mapping[str, Any]  # name, config
    recipe: Mapping[str, Any]  # how they were trained
    seed: int  # of the key


def describe_transform(
    transform: Transform, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """A preprocessing in a few words, to be compared by `Store.check`.

    Args:
      transform: what images go through.
      image_shape: of one image, (h, w, c).

    Returns:
      `kind`; `sha256` of its arrays; and `probe`, eight sums of what it makes of a fixed
      image of noise. The probe decides where the digests differ: ZCA fitted on the same
      images by two machines differs in its last bits.
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
    """Bytes on disk."""
    return num_experts * (num_epochs + 1) * num_params * np.dtype(DTYPES[dtype]).itemsize


def create(
    path: pathlib.Path | str, description: Description, dtype: str = "float32"
) -> "Store":
    """An empty store in the directory `path`, which is made if need be.

    Args:
      path: the directory; it may hold other files.
      description: what the experts will be.
      dtype: how parameters are kept: float32, float16 or bfloat16.

    Raises:
      InputError: there is a store already, it cannot be written, or an unknown dtype.
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
        store = Store(path, description, dtype, np.zeros(description.num_experts, int))
        store._record()
    except OSError as error:
        raise InputError(
            f"{path}: experts cannot be kept there ({error.strerror}); choose another place"
        ) from None
    return store


def open(path: pathlib.Path | str) -> "Store":
    """The store in the directory `path`.

    Raises:
      InputError: there is none; it is damaged or truncated; or of a newer format.
    """
    path = pathlib.Path(path)
    described = path / DESCRIBED
    try:
        held = json.loads(described.read_text(encoding="utf-8"))
        if held["format"] > FORMAT:
            raise InputError(
                f"{path}: format {held['format']} of experts is newer than this library "
                f"reads ({FORMAT}); upgrade distilljax"
            )
        description = Description(**held["description"])
        dtype, rows_done = held["dtype"], np.asarray(held["rows_done"], int)
        itemsize = np.dtype(DTYPES[dtype]).itemsize
        num_rows = description.num_epochs + 1
        if rows_done.shape != (description.num_experts,):
            raise ValueError(f"rows_done is of {rows_done.size} experts")
        if ((rows_done < 0) | (rows_done > num_rows)).any():
            raise ValueError(f"rows_done lies outside 0..{num_rows}")
    except FileNotFoundError:
        raise InputError(
            f"{path}: there are no experts ({DESCRIBED} is missing); train some with "
            f"python -m experiments.train_experts --workdir={path}"
        ) from None
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{described} is damaged ({error!r}); delete {path} and train the experts again"
        ) from None
    store = Store(path, description, dtype, rows_done)
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
    """Trajectories on disk; made by `create` or `open`.

    Attributes:
      path: the directory.
      description: what the experts are.
      dtype: how parameters are kept.
      shape: experts, rows of an expert (epochs + 1), parameters.
      rows_done: i64[experts], successive rows of each expert, from epoch 0 on, on disk.
    """

    def __init__(
        self,
        path: pathlib.Path,
        description: Description,
        dtype: str,
        rows_done: np.ndarray,
    ):
        self.path, self.description, self.dtype = path, description, dtype
        self.shape = (
            description.num_experts,
            description.num_epochs + 1,
            description.num_params,
        )
        self.rows_done = rows_done

    @property
    def complete(self) -> np.ndarray:
        """The numbers of the experts that were trained to their end, i64[...]."""
        return np.flatnonzero(self.rows_done == self.shape[1])

    def write(self, first_expert: int, epoch: int, params: Array | np.ndarray) -> None:
        """Keeps the parameters of successive experts after `epoch`.

        The epochs of an expert come in order; one written again, by a run that resumes,
        takes those after it back.

        Args:
          first_expert: the number of the first of them.
          epoch: 0 for the initialisations.
          params: f32[m, p].

        Raises:
          ValueError: not such rows, or an epoch that leaves a gap.
          InputError: parameters that are not finite, or beyond what float16 holds; or the
            disk is full.
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
        if (self.rows_done[first_expert:last] > epoch).any():
            self.rows_done[first_expert:last] = epoch
            self._record()
        try:
            with (self.path / DATA).open("r+b") as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                start = file.tell()
                for i, row in enumerate(kept):
                    at = ((first_expert + i) * num_rows + epoch) * size
                    file.seek(start + at * kept.itemsize)
                    file.write(row.tobytes())
                file.flush()
                os.fsync(file.fileno())
            self.rows_done[first_expert:last] = epoch + 1
            self._record()
        except OSError as error:
            raise InputError(
                f"{self.path}: experts cannot be written ({error.strerror}); make room, "
                "then run the same command again"
            ) from None

    def read(
        self, experts: int | slice, first_epoch: int = 0, last_epoch: int | None = None
    ) -> Trajectories:
        """Parameters of complete experts from `first_epoch` to `last_epoch`, both included.

        Only these rows are read. They keep the dtype of the store.

        Args:
          experts: how many, the first ones that are complete; or a slice of expert
            numbers, all of which must be.
          first_epoch: 0 is the initialisation.
          last_epoch: the last epoch of the store if None.

        Raises:
          InputError: too few complete experts, or epochs that the store does not have.
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
        params = jnp.asarray(rows.view(DTYPES[self.dtype]))
        return Trajectories(params, jnp.asarray(first_epoch, jnp.int32))

    def check(self, wanted: Mapping[str, Any]) -> None:
        """Refuses experts that are not what is wanted.

        Args:
          wanted: fields of `Description`; a nested mapping names only what matters, such
            as `{"model": {"name": "convnet"}}`.

        Raises:
          InputError: names every mismatch.
        """
        there = self.description._asdict()
        wrong = [
            f"{name} is {_shown(theirs)} there and {_shown(ours)} is wanted"
            for name, theirs, ours in _mismatches(there, wanted)
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

    def _record(self) -> None:
        write_json(
            self.path / DESCRIBED,
            {
                "format": FORMAT,
                "distilljax": distilljax.__version__,
                "description": self.description._asdict(),
                "dtype": self.dtype,
                "rows_done": self.rows_done.tolist(),
            },
        )


def _on_disk(dtype: str) -> np.dtype:
    return np.dtype(np.uint16 if dtype == "bfloat16" else DTYPES[dtype])


def _mismatches(
    there: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, what is there, what is wanted."""
    for name, ours in wanted.items():
        theirs = there.get(name)
        if prefix + name == "preprocess":
            if not _same_transform(theirs, ours):
                yield "preprocessing", theirs, ours
        elif isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from _mismatches(theirs, ours, f"{prefix}{name}.")
        elif _plain(theirs) != _plain(ours):
            yield prefix + name, theirs, ours


def _same_transform(a: Any, b: Any) -> bool:
    if not isinstance(a, Mapping) or a.get("kind") != b["kind"]:
        return False
    if a.get("sha256") == b["sha256"]:
        return True
    theirs, ours = (np.asarray(one.get("probe", []), np.float64) for one in (a, b))
    if theirs.shape != ours.shape or not ours.size:
        return False
    return bool(np.abs(theirs - ours).max() <= 1e-3 * max(1.0, np.abs(ours).max()))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "sha256" in value:
        return f"{value['kind']} (SHA-256 {value['sha256'][:8]}...)"
    text = str(value)
    is_digest = isinstance(value, str) and len(text) == 64
    return f"{text[:8]}..." if is_digest else repr(value)
