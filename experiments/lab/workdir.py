"""The working directory of a run: its place, its owner and its settings."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from distilljax import data, devices, keys, launch, processes
from distilljax.config import Config
from distilljax.disk.files import is_temporary, locked, read_json, replacing, write_json
from distilljax.io.environment import arithmetic
from distilljax.types import InputError
from experiments.lab.options import PROCESS_OPTIONS

ROOT = pathlib.Path("runs")
CONFIG, SUMMARY, LOCK = "config.json", "summary.json", ".lock"

BEFORE = "before"  # what a run had given before it went on with larger numbers

# Options that name a folder of this machine, or say what of it is used.
PLACES = ("workdir", "data_dir", "experts_dir", "devices", *PROCESS_OPTIONS)
WATCHING = ("tensorboard", "hook")  # these change nothing of a run


def workdir_path(module: str, config: Config, label: str) -> pathlib.Path:
    """Returns the place of a run: `--workdir`, or a name made of its settings."""
    chosen = config.to_dict().get("workdir")
    if chosen:
        return pathlib.Path(chosen).expanduser()
    digest = hashlib.sha256(json.dumps(identity_of(config), sort_keys=True).encode())
    name = module.rpartition(".")[2]
    return ROOT / name / f"{label}-{digest.hexdigest()[:8]}"


def identity_of(config: Config) -> dict[str, Any]:
    """Returns the settings that identify a run: all but those of machine and watching."""
    apart = PLACES + WATCHING
    return {n: value for n, value in config.to_dict().items() if n not in apart}


def command_of(module: str, config: Config) -> str:
    """Returns the command that repeats the run, without those."""
    default = type(config)()
    return launch.command_line(
        module,
        config.replace(
            {n: getattr(default, n) for n in PLACES + WATCHING if hasattr(config, n)}
        ),
    )


@contextlib.contextmanager
def open_workdir(
    path: pathlib.Path, module: str, config: Config, grows: Sequence[str] = ()
) -> Iterator[None]:
    """Claims `path` for this run, writing `config.json` if it is new.

    A new run that fails before it has computed anything leaves the place as it was, so
    that the corrected command can use it. After an interruption the run goes on there.

    Args:
      path: the folder.
      module: the experiment.
      config: its options.
      grows: options that may be larger than they were: then the run goes on from where it
        is, and what it had given before is kept in the folder `before`.

    Raises:
      InputError: the place cannot be written, holds a different run, is in use, or is gone
        before the run ends; or there are fewer devices than `--devices`.
    """
    devices.mesh(config.to_dict().get("devices"))
    claimed = _claim(path, module, config, grows)
    try:
        yield
    except Exception as error:
        first = processes.index() == 0
        if first and not path.is_dir():
            raise InputError(
                f"workdir {path} was deleted or moved while the run was in it; run the "
                "command again, or with --workdir where it is now"
            ) from error
        if first and claimed.new and not _holds_results(path):
            _leave(path, claimed.made)
        raise
    finally:
        if processes.index() == 0:
            os.close(claimed.lock)


class _Claimed(NamedTuple):
    """A folder that belongs to this run."""

    made: list[pathlib.Path]  # folders, the outermost first
    lock: int  # descriptor of the lock file, in the first process
    new: bool  # whether the run begins here


@processes.once
def _claim(
    path: pathlib.Path, module: str, config: Config, grows: Sequence[str]
) -> _Claimed:
    made = _make_folder(path)
    lock = _lock(path)
    try:
        return _Claimed(made, lock, _check_identity(path, module, config, grows))
    except BaseException:
        os.close(lock)
        raise


def _make_folder(path: pathlib.Path) -> list[pathlib.Path]:
    """Makes the folder; returns those that were made, the outermost first."""
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        raise InputError(
            f"the name of workdir {path.as_posix()!a} is no text; choose another --workdir"
        ) from None
    missing = [place for place in (path, *path.parents) if not place.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None
    return missing[::-1]


def _unwritable(path: pathlib.Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write to workdir {path} ({error.strerror}); choose another --workdir"
    )


def _lock(path: pathlib.Path) -> int:
    """Returns the descriptor of the lock file, locked; a link is not followed."""
    try:
        lock = locked(path / LOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(
                f"{path / LOCK} is a link; delete it, or choose another --workdir"
            ) from None
        raise _unwritable(path, error) from None
    if lock is None:
        raise InputError(
            f"workdir {path} is in use by another process; wait for it, or choose "
            "another --workdir"
        )
    return lock


def _leave(path: pathlib.Path, made: Sequence[pathlib.Path]) -> None:
    """Removes what a run has put there, and the folders that it made."""
    for entry in path.iterdir():
        if entry.name in (CONFIG, LOCK) or is_temporary(entry.name):
            entry.unlink()
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)  # it holds no result
    for place in reversed(made):
        with contextlib.suppress(OSError):
            place.rmdir()


def _holds_results(path: pathlib.Path) -> bool:
    return any(
        entry.is_file() and entry.stat().st_size and entry.name != CONFIG
        for entry in path.rglob("*")
    )


def _check_identity(
    path: pathlib.Path, module: str, config: Config, grows: Sequence[str]
) -> bool:
    """Returns whether the run is new here."""
    for entry in path.iterdir():
        if is_temporary(entry.name):  # of a run that was killed
            entry.unlink()
    described = path / CONFIG
    if not described.exists():
        if any(entry.name != LOCK for entry in path.iterdir()):
            raise InputError(
                f"workdir {path} holds files of something else; choose an empty --workdir"
            )
        about = {"experiment": module, "config": identity_of(config)}
        about |= {"command": command_of(module, config), "computed": [_arithmetic(config)]}
        if (generator := keys.generator()) != keys.GENERATOR:
            about["generator"] = generator
        write_json(described, about)
        return True
    held = _read_config(path)
    _check_generator(path, held.get("generator", keys.GENERATOR))
    theirs = dict(launch.flatten(held["config"])) | {"experiment": held["experiment"]}
    ours = dict(launch.flatten(identity_of(config))) | {"experiment": module}
    differing = [n for n in sorted(ours | theirs) if ours.get(n) != theirs.get(n)]
    larger = [n for n in grows if _is_larger(ours.get(n), theirs.get(n))]
    if differing and {*differing} <= {*larger}:
        _go_on(path, held, config, differing)
        held = _read_config(path)
    elif differing:
        shown = ", ".join(
            f"{n} is {theirs.get(n)!r} there, {ours.get(n)!r} here" for n in differing[:3]
        )
        raise InputError(
            f"workdir {path} holds a different run ({shown}); choose another --workdir, "
            "or give the same settings to resume that one"
            + f"; {', '.join(grows)} may be larger"
            * bool({*differing} & {*grows})
        )
    if not (path / SUMMARY).exists():
        _note_arithmetic(path, held, _arithmetic(config))
    return False


def _check_generator(path: pathlib.Path, theirs: object) -> None:
    """Refuses to go on with other random numbers under the same seed."""
    if theirs != (ours := keys.generator()):
        raise InputError(
            f"workdir {path} holds a run with the random numbers of {theirs}, and JAX's "
            f"settings now ask for {ours}; set them as they were "
            "(JAX_DEFAULT_PRNG_IMPL, JAX_THREEFRY_PARTITIONABLE, JAX_RANDOM_SEED_OFFSET), "
            "or choose another --workdir"
        )


def _is_larger(now: Any, before: Any) -> bool:
    """Whether both are numbers, and the first is the larger."""
    return all(type(n) in (int, float) for n in (now, before)) and now > before


def _go_on(
    path: pathlib.Path, held: dict[str, Any], config: Config, larger: Sequence[str]
) -> None:
    """Keeps what a run has given, and lets it go on with larger numbers."""
    before, now = held["config"], identity_of(config)
    steps = ", ".join(f"{n} from {before[n]} to {now[n]}" for n in larger)
    said = f"this run goes on: {steps}"
    if (path / SUMMARY).exists():
        kept = path / BEFORE / "-".join(f"{n}{before[n]}" for n in larger)
        kept.mkdir(parents=True, exist_ok=True)
        for entry in path.iterdir():
            if entry.is_file() and entry.name != LOCK:
                with replacing(kept / entry.name) as temporary:
                    shutil.copyfile(entry, temporary)
        (path / SUMMARY).unlink()
        said += f"; what it was before is kept in {kept}"
    told = held | {"config": now, "origin": held.get("origin", before)}
    told["command"] = command_of(held["experiment"], config)
    write_json(path / CONFIG, told)
    print(said)


def _arithmetic(config: Config) -> str:
    """Returns what the last digits of a run depend on, with its number of devices."""
    given = config.to_dict().get("devices", 1)
    num = jax.device_count() if given is None else given
    return arithmetic() + f", {num} devices" * (num > 1)


def _note_arithmetic(path: pathlib.Path, held: dict[str, Any], now: str) -> None:
    """Says where the rest of a run may differ in the last digits, and writes it down."""
    said = held.get("computed")
    before: list[str] = said if isinstance(said, list) else []
    if not all(isinstance(one, str) for one in before):
        before = []
    if before and before[-1] == now:
        return
    if before:
        print(
            f"this run was begun by {before[-1]} and goes on by {now}: its result is that "
            "of an undisturbed run but for rounding, not bit for bit",
            file=sys.stderr,
            flush=True,
        )
    write_json(path / CONFIG, held | {"computed": [*before, now]})


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    try:
        held = read_json(path / CONFIG)
        if not isinstance(held["config"], dict) or not isinstance(held["experiment"], str):
            raise ValueError
    except (OSError, ValueError, KeyError):
        raise InputError(
            f"{path / CONFIG} is damaged; choose another --workdir, or delete {path}"
        ) from None
    return held


@processes.once
def claim_data(path: pathlib.Path, loaded: data.Dataset) -> str:
    """Writes down which data a run is on; refuses to go on with others.

    Returns:
      The SHA-256, hex, of settings and data, by which checkpoints know their run; of a
      run that goes on with larger numbers, of the settings that it began with.

    Raises:
      InputError: the run was begun on other data, as where a file was rewritten.
    """
    held = _read_config(path)
    before = held.setdefault("data", loaded.fingerprint)
    if before != loaded.fingerprint:
        raise InputError(
            f"workdir {path} holds a run on other data: {loaded.name} has changed since "
            "(its SHA-256 differs); choose another --workdir"
        )
    write_json(path / CONFIG, held)
    said = [held["experiment"], held.get("origin", held["config"]), held["data"]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
