"""Hostile values of flags."""

import importlib

import numpy as np

from distilljax import launch
from tests.campaigns.trials import Trial, judge, place
from tests.campaigns.world import COMMANDS, World

VALUES = (
    "",
    "none",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1",
    "2.5",
    "1e-46",
    "1e300",
    "-1e-46",
    "1000000000000000000",
    "1000000000000000000000",
    "2147483648",
    "x",
    ",",
    ",,a",
    "a,a",
    "true",
    "\x1b[31m",
    "$x_",
    "[bold]",
    "~",
    "/dev/null",
    "/proc/self/mem",
    "é猫",
    "x" * 300,
    "..",
)
# More of these is more work, as asked for; only how it is refused is tried.
WORK = ("steps", "epochs", "iterations", "every", "permutations", "seconds", "num_iters")
LONG = ("1000000000000000000", "2147483648")
PLACES = ("workdir", "data_dir", "out", "minutes")


def trial(world: World, rng: np.random.Generator, number: int) -> tuple[str, Trial]:
    """Gives one flag a hostile value."""
    tried = [name for name in COMMANDS if name != "study"]
    which = tried[int(rng.integers(len(tried)))]
    command = COMMANDS[which]
    config = importlib.import_module(f"experiments.{command.name}.run").Config()
    names = [n for n, _ in launch.flatten(config.to_dict()) if n not in PLACES]
    name = names[int(rng.integers(len(names)))]
    value = VALUES[int(rng.integers(len(VALUES)))]
    if value in LONG and any(word in name for word in WORK):
        value = "-1"
    with place(world.root / "trials", number) as folder:
        ended = world.run(which, folder / "run", **{name: value})
        return f"{which} --{name}={value!r:.30}", judge(ended)
