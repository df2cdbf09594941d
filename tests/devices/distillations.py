"""Distillations by the command on 4 devices and on 1, and begun on the one or the other.

    python -m tests.devices.distillations FOLDER CASE...    needs 4 devices

A case is a name of `hosts.CASES`. Prints a line for each run with other numbers.
"""

import pathlib
import sys
import time

import jax

from distilljax import launch
from experiments.distill import run as distill
from experiments.train_experts import run as train_experts
from tests.devices import hosts

WAYS = {"one": (1,), "four": (4,), "four_one": (4, 1), "one_four": (1, 4)}
STEPS = 6


def distilled(case: str, folder: pathlib.Path, way: str) -> pathlib.Path:
    """Returns the folder of a run: the steps in equal parts, each on its devices."""
    workdir = folder / way / case
    for part, num in enumerate(WAYS[way], 1):
        steps = f"--steps={STEPS * part // len(WAYS[way])}"
        argv = [*hosts.argv(case, folder, workdir), f"--devices={num}", steps]
        distill.run(launch.parse(distill.Config, argv))
    return workdir


def experts(folder: pathlib.Path) -> None:
    """Trains those that `tm` reads, for every way."""
    argv = hosts.argv("experts", folder, folder / "experts")
    train_experts.run(launch.parse(train_experts.Config, [*argv, "--devices=1"]))
    for way in WAYS:
        (folder / way).mkdir(exist_ok=True)
        (folder / way / "experts").symlink_to(folder / "experts")


def main() -> None:
    assert jax.device_count() == 4
    folder, failures = pathlib.Path(sys.argv[1]), 0
    for case in sys.argv[2:]:
        began = time.process_time()
        if case == "tm":
            experts(folder)
        wanted = distilled(case, folder, "one")
        for way in list(WAYS)[1:]:
            try:
                hosts.assert_same_numbers(distilled(case, folder, way), wanted)
            except AssertionError as error:
                failures += 1
                print(f"{case}, {way}: {error}", flush=True)
        took = time.process_time() - began
        print(f"{case}: {took:.1f} CPU s", file=sys.stderr, flush=True)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
