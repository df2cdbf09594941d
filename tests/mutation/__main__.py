"""The command: a seeded sample of mutants, each against the tests of its module."""

import argparse
import importlib.util
import pathlib
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tests.mutation import runs
from tests.mutation.copies import ROOT, Copies, mutated
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.runs import Ended
from tests.mutation.sample import Mutant, draw, find
from tests.mutation.targets import modules, own_tests

NOTICED = 0.9  # share of the mutants that the tests must notice
SECONDS = 1200  # for a file of tests
# Tests of foreign files that are skipped would notice nothing.
NEEDED = ("cosmic_ray", "h5py", "pyarrow")
_UNNOTICED = re.compile(r"^\S+ (\S+):\d+ \w+: unnoticed\n  - (.*)\n  \+ (.*)$", re.M)


class Judged(NamedTuple):
    """A mutant and what became of it."""

    mutant: Mutant
    verdict: Literal["noticed", "unnoticed", "equivalent"]
    why: str


def judge(
    folder: pathlib.Path,
    mutant: Mutant,
    tests: Sequence[str],
    passing: set[tuple[str, str]],
) -> Judged:
    """Runs the tests of a mutant, a file at a time, unless it is known to be equivalent.

    Args:
      folder: copy of the repository.
      mutant: the change.
      tests: files of tests of its module.
      passing: (how it failed, test), of those known to pass unchanged; added to.

    Raises:
      RuntimeError: the tests that fail do so unchanged.
    """
    if reason := EQUIVALENT.get((mutant.module, mutant.before, mutant.after)):
        return Judged(mutant, "equivalent", reason)
    for path in tests:
        with mutated(folder, mutant):
            ended = runs.run_tests(folder, [path], SECONDS)
        if ended.how != "passed":
            blamed = ended.blamed() or path
            if (ended.how, blamed) not in passing:
                _check_unchanged(folder, blamed, ended)
                passing.add((ended.how, blamed))
            return Judged(mutant, "noticed", f"{blamed} ({ended.how})")
    return Judged(mutant, "unnoticed", f"by {', '.join(tests)}")


def _check_unchanged(folder: pathlib.Path, blamed: str, changed: Ended) -> None:
    """Raises `RuntimeError` if what fails changed does so unchanged too."""
    # A file that fails as a whole cannot be imported, or does not come to an end.
    collected = changed.how == "failed" and "::" not in blamed
    asked = ["--collect-only", blamed] if collected else [blamed]
    ended = runs.run_tests(folder, asked, SECONDS)
    if ended.how != "passed":
        raise RuntimeError(f"{blamed} {ended.how} unchanged:\n{ended.output}")


def _show(judged: Judged) -> str:
    mutant = judged.mutant
    name = mutant.operator.removeprefix("core/")
    return (
        f"{mutant.module}:{mutant.lines[0]} {name}: {judged.verdict}"
        f"\n  - {mutant.before}\n  + {mutant.after}\n  {judged.why}"
    )


def again(root: pathlib.Path, printed: str) -> list[Mutant]:
    """Returns the mutants that an earlier run printed as unnoticed, if they still exist."""
    found = []
    for module, before, after in _UNNOTICED.findall(printed):
        same = find(root, module, before, after) if (root / module).exists() else []
        found += same
        if not same:
            print(f"{module}: gone\n  - {before}\n  + {after}")
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs mutants; returns 1 if more than one in ten is not noticed."""
    parser = argparse.ArgumentParser("python -m tests.mutation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=150, help="number of mutants")
    parser.add_argument("--modules", default="", help="files or folders, with commas")
    parser.add_argument(
        "--again", type=pathlib.Path, help="output of an earlier run: those unnoticed alone"
    )
    parser.add_argument("--jobs", type=int, default=1, help="mutants at the same time")
    parser.add_argument("--list", action="store_true", help="print the mutants alone")
    parser.add_argument("--show", action="store_true", help="print those noticed too")
    options = parser.parse_args(argv)
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        parser.error(f"no {' and '.join(missing)}; run: pip install -e '.[mutation]'")
    if options.again:
        mutants = again(ROOT, options.again.read_text())
    else:
        chosen = modules(ROOT, options.modules.split(",") if options.modules else [])
        mutants = list(draw(ROOT, chosen, options.seed, options.count))
    tests = {mutant.module: own_tests(ROOT, mutant.module) for mutant in mutants}
    if options.list:
        for mutant in mutants:
            print(f"{mutant.module}:{mutant.lines[0]}")
            print(f"  - {mutant.before}\n  + {mutant.after}")
        return 0
    counts: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="mutation-") as place,
        Copies(pathlib.Path(place), options.jobs) as copies,
    ):
        passing: set[tuple[str, str]] = set()

        def tried(folder: pathlib.Path, mutant: Mutant) -> Judged:
            return judge(folder, mutant, tests[mutant.module], passing)

        for number, judged in enumerate(copies.each(tried, mutants), 1):
            counts[judged.verdict] += 1
            if options.show or judged.verdict == "unnoticed":
                print(f"{number}/{len(mutants)} {_show(judged)}", flush=True)
    seen, unseen = counts["noticed"], counts["unnoticed"]
    share = seen / max(1, seen + unseen)
    equivalent = counts["equivalent"]
    print(f"{seen} noticed  {unseen} unnoticed  {equivalent} equivalent  ({share:.0%})")
    return 1 if share < NOTICED else 0


if __name__ == "__main__":
    sys.exit(main())
