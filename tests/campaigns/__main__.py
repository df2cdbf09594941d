"""The command: random trials of the kinds that are asked for, and what was wrong."""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import NamedTuple

from tests.campaigns.trials import prepare_processes

SECONDS_BETWEEN_LINES = 30.0  # of progress, on stderr


class Tally(NamedTuple):
    """The trials of a kind."""

    kind: str
    verdicts: dict[str, int]
    wrong: list[str]  # number, what was done, why it is wrong


def run_kind(world, kind: str, seed: int, numbers: Iterable[int], *, show=False) -> Tally:
    """Runs the trials of a kind with these numbers."""
    import numpy as np

    from tests.campaigns.kinds import KINDS
    from tests.campaigns.trials import Trial, snapshot

    tally = Tally(kind, dict.fromkeys(("right", "refused", "wrong"), 0), [])
    free = [world.root / n for n in ("trials", "temporary", "scratch", "finished")]
    free += [world.root / n for n in ("whole", "warm", "sets", "records", "operations.txt")]
    before, said = snapshot(world.root, free), time.monotonic()
    for number in numbers:
        rng = np.random.default_rng([seed, list(KINDS).index(kind), number])
        what, trial = KINDS[kind](world, rng, number)
        after = snapshot(world.root, free)
        changed = sorted(
            p for p in before.keys() | after.keys() if before.get(p) != after.get(p)
        )
        changed = [p for p in changed if not p.endswith("operations.txt")]
        if changed and trial.verdict != "wrong":
            trial = Trial("wrong", f"a file outside the workdir has changed: {changed[0]}")
        before = after
        tally.verdicts[trial.verdict] += 1
        line = f"{kind} {number}: {what}: {trial.verdict}: {trial.why}"
        if trial.verdict == "wrong":
            tally.wrong.append(line)
        if show or trial.verdict == "wrong":
            print(line, file=sys.stderr, flush=True)
        if time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"{kind} {number}: {_counts(tally)}", file=sys.stderr, flush=True)
    return tally


def _counts(tally: Tally) -> str:
    return "  ".join(f"{n} {name}" for name, n in tally.verdicts.items())


def main(argv: list[str] | None = None) -> int:
    """Runs campaigns; returns 1 if any trial was wrong."""
    parser = argparse.ArgumentParser("python -m tests.campaigns")
    parser.add_argument("--kinds", default="", help="with commas; all if empty")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20, help="trials of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--only", type=int, help="the trial of this number alone")
    parser.add_argument("--show", action="store_true", help="print every trial")
    parser.add_argument("--keep", action="store_true", help="keep the folder of it all")
    options = parser.parse_args(argv)
    prepare_processes()
    from tests.campaigns.kinds import KINDS
    from tests.campaigns.world import World

    kinds = options.kinds.split(",") if options.kinds else list(KINDS)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"unknown kind {unknown[0]}; choose among {', '.join(KINDS)}")
    first = options.first if options.only is None else options.only
    numbers = range(first, first + (options.count if options.only is None else 1))
    root = pathlib.Path(tempfile.mkdtemp(prefix="campaign-"))
    tallies = []
    try:
        with World(root / "world").entered() as world:
            for kind in kinds:
                began = time.monotonic()
                tally = run_kind(world, kind, options.seed, numbers, show=options.show)
                tallies.append(tally)
                seconds = time.monotonic() - began
                print(
                    f"{kind:<10} {len(numbers)} tried  {_counts(tally)}  ({seconds:.0f} s)",
                    flush=True,
                )
    finally:
        if options.keep:
            print(f"kept in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    for tally in tallies:
        for line in tally.wrong:
            print(line)
    return 1 if any(tally.wrong for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
