"""What a run is given besides its options: experts, and the set that it begins with."""

import hashlib
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from distilljax import launch, processes
from distilljax.disk.files import read_json, write_json
from distilljax.io import trajectories
from distilljax.types import InputError
from experiments.distill.options import Config, needs_experts
from experiments.lab.options import expand
from experiments.lab.sets import file_of

EXPERTS, START = "experts.json", "start.json"
_OTHER = {
    EXPERTS: "with other experts; give the --experts_dir it had",
    START: "from another set (the SHA-256 of --init_from differs); give the file it had",
}


@processes.once
def keep(config: Config, workdir: pathlib.Path, experts: Mapping[str, Any] | None) -> None:
    """Writes down what the run uses; a resumed run must use the same.

    Args:
      config: the options.
      workdir: of the run.
      experts: description of those that are used; None where none are.

    Raises:
      InputError: the run had others.
    """
    for name, described in ((EXPERTS, experts), (START, _describe_start(config))):
        if described is not None:
            _check_same(workdir, name, described)
            write_json(workdir / name, described)


@processes.once
def check(config: Config, workdir: pathlib.Path) -> None:
    """Refuses to show a finished run as that of other experts, or from another set.

    Where those that are named are not there any more, one line on stderr says so.

    Raises:
      InputError: the run had others.
    """
    for name, describe in ((EXPERTS, _describe_experts), (START, _describe_start)):
        try:
            described = describe(config)
        except InputError as error:
            text = f"{error}; so this run is not compared with what it was given"
            print(launch.printable(text), file=sys.stderr, flush=True)
            continue
        if described is not None:
            _check_same(workdir, name, described)


def _describe_experts(config: Config) -> Mapping[str, Any] | None:
    if not config.experts_dir or not needs_experts(config):
        return None
    return trajectories.open(expand(config.experts_dir)).description._asdict()


def _describe_start(config: Config) -> Mapping[str, Any] | None:
    if not config.init_from:
        return None
    path = file_of(expand(config.init_from))
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    return {"sha256": hashlib.sha256(content).hexdigest()}


def _check_same(workdir: pathlib.Path, name: str, described: Mapping[str, Any]) -> None:
    """Compares with what was written down; runs of before 2026-11-30 have no start.json."""
    path = workdir / name
    try:
        held = read_json(path) if path.exists() else described
    except (OSError, ValueError):
        raise InputError(
            f"{path} is damaged; choose another --workdir, or delete {workdir}"
        ) from None
    if held != described:
        raise InputError(
            f"workdir {workdir} holds a run {_OTHER[name]}, or choose another --workdir"
        )
