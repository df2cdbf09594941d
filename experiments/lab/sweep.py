"""Several runs of one experiment, one after the other, and one table at the end.

Every run has a folder of its own below that of the sweep, named by what is varied, such as
`ipc10-seed1`: a finished one is not run again, one that was cut goes on. A run that fails
stops none of the others, but for an error in one of several processes, which ends all of
them. All runs share the processes, so that the peak memory that one records is that of the
process so far.
"""

import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

from distilljax import launch, processes
from distilljax.config import Config
from distilljax.flags import message
from distilljax.types import InputError
from experiments.lab import outcome_tables, outcomes
from experiments.lab.pictures import kept_apart
from experiments.lab.workdir import CONFIG, ROOT, identity_of

CSV, PICTURE = "sweep.csv", "sweep.png"


def run(
    configs: Mapping[str, Config],
    module: str,
    label: str,
    run_one: Callable[..., object],
) -> list[outcomes.Group]:
    """Runs configurations that differ in a few options.

    Args:
      configs: by name of the run.
      module: the experiment, such as `experiments.distill`.
      label: begins the name of the folder where no `workdir` is given.
      run_one: runs a configuration.

    Returns:
      The runs that are finished, joined where they differ in their seed alone.

    Raises:
      InputError: two runs of the same settings; a folder that holds something else, or a
        run that failed; after the table of those that did not.
    """
    _check_different(configs)
    root = _root(configs, module, label)
    if processes.once((root / CONFIG).exists)():
        raise processes.known_to_all(
            InputError(
                f"workdir {root} holds a single run; choose another --workdir for several"
            )
        )
    failed: dict[str, str] = {}
    for number, (name, config) in enumerate(configs.items(), 1):
        print(f"\n== run {number} of {len(configs)}: {name}, in {root / name}", flush=True)
        try:
            run_one(config.replace({"workdir": str(root / name)}))
        except InputError as error:
            if processes.count() > 1 and not processes.is_known_to_all(error):
                raise
            failed[name] = message(error)
            print("error:", launch.printable(failed[name]), file=sys.stderr, flush=True)
    done = [root / name for name in configs if name not in failed]
    groups = _conclude(root, done, len(configs)) if done else []
    if failed:
        name, why = next(iter(failed.items()))
        text = f"{len(failed)} of {len(configs)} runs failed; {name}: {why}"
        raise processes.known_to_all(InputError(text))
    return groups


def _check_different(configs: Mapping[str, Config]) -> None:
    """Refuses to count one run as several, as for --seeds=1,01 or folders alone."""
    found: dict[str, str] = {}
    for name, config in configs.items():
        settings = json.dumps(identity_of(config), sort_keys=True)
        if (other := found.setdefault(settings, name)) != name:
            raise InputError(
                f"the runs {other} and {name} have the same settings, so they would be one "
                "run counted twice; vary another flag, or give other values"
            )


@processes.once
def _conclude(
    root: pathlib.Path, done: Sequence[pathlib.Path], number: int
) -> list[outcomes.Group]:
    """Reads the finished runs and shows them."""
    groups = outcomes.group([outcomes.read(folder) for folder in done])
    show(root, groups, number)
    return groups


def show(root: pathlib.Path, groups: list[outcomes.Group], number: int) -> None:
    """Prints the table of a sweep, and writes it down."""
    outcome_tables.write_csv(root / CSV, groups)
    print(f"\n== {sum(len(one.runs) for one in groups)} of {number} runs are finished\n")
    outcome_tables.print_figures(groups, str(root / CSV))
    with kept_apart("the picture"):
        outcome_tables.draw(root / PICTURE, groups)
    print(f"In {root}: a folder for each run, {CSV} and {PICTURE}")


def _root(configs: Mapping[str, Config], module: str, label: str) -> pathlib.Path:
    """Returns the folder of a sweep: `--workdir`, or a name made of all settings."""
    first = next(iter(configs.values()))
    if chosen := first.to_dict().get("workdir"):
        return pathlib.Path(chosen).expanduser()
    said = [identity_of(config) for config in configs.values()]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]
    return ROOT / module.rpartition(".")[2] / f"{label}-{len(configs)}runs-{digest}"
