"""The working directory of a run: its place, its owner and its settings."""

import contextlib
import fcntl
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from distilljax import launch
from distilljax.config import Config
from distilljax.io.files import write_json
from distilljax.types import InputError

ROOT = pathlib.Path("runs")

# Options that name a folder of this machine.
PLACES = ("workdir", "data_dir", "experts_dir")


def workdir_path(module: str, config: Config, label: str) -> pathlib.Path:
    """Returns the place of a run: `--workdir`, or a name made of its settings."""
    chosen = config.to_dict().get("workdir")
    if chosen:
        return pathlib.Path(chosen).expanduser()
    digest = hashlib.sha256(json.dumps(identity_of(config), sort_keys=True).encode())
    name = module.rpartition(".")[2]
    return ROOT / name / f"{label}-{digest.hexdigest()[:8]}"


def identity_of(config: Config) -> dict[str, Any]:
    """Returns the settings that identify a run: all but the places of files."""
    return {n: value for n, value in config.to_dict().items() if n not in PLACES}


def command_of(module: str, config: Config) -> str:
    """Returns the command that repeats the run, without the places of files."""
    return launch.command_line(
        module, config.replace({n: None for n in PLACES if hasattr(config, n)})
    )


@contextlib.contextmanager
def open_workdir(path: pathlib.Path, module: str, config: Config) -> Iterator[None]:
    """Claims `path` for this run, writing `config.json` if it is new.

    A new run that ends with the user's mistake before it computed anything leaves the
    place as it was, so that the corrected command can use it.

    Raises:
      InputError: the place cannot be written, holds a different run, or is in use.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"cannot write to workdir {path} ({error.strerror}); choose another --workdir"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"workdir {path} is in use by another process; wait for it, or choose "
                "another --workdir"
            ) from None
        new = _check_identity(path, module, config)
        try:
            yield
        except InputError:
            if new and not _holds_results(path):
                shutil.rmtree(path)
            raise


def _holds_results(path: pathlib.Path) -> bool:
    return any(
        entry.is_file() and entry.stat().st_size and entry.name != "config.json"
        for entry in path.rglob("*")
    )


def _check_identity(path: pathlib.Path, module: str, config: Config) -> bool:
    """Whether the run is new here."""
    described = path / "config.json"
    if not described.exists():
        if any(entry.name != ".lock" for entry in path.iterdir()):
            raise InputError(
                f"workdir {path} holds files of something else; choose an empty --workdir"
            )
        write_json(
            described,
            {
                "experiment": module,
                "config": identity_of(config),
                "command": command_of(module, config),
            },
        )
        return True
    try:
        held = json.loads(described.read_text(encoding="utf-8"))
        theirs = dict(launch.flatten(held["config"])) | {"experiment": held["experiment"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{described} is damaged; choose another --workdir, or delete {path}"
        ) from None
    ours = dict(launch.flatten(identity_of(config))) | {"experiment": module}
    differing = [n for n in sorted(ours | theirs) if ours.get(n) != theirs.get(n)]
    if differing:
        shown = ", ".join(
            f"{n} is {theirs.get(n)!r} there, {ours.get(n)!r} here" for n in differing[:3]
        )
        raise InputError(
            f"workdir {path} holds a different run ({shown}); choose another --workdir, "
            "or give the same settings to resume that one"
        )
    return False
