"""A study of three steps that only count, for tests of what goes around real ones.

`python -m tests.experiments.study.fake_study WORKDIR [--minutes=M]` is the study, the same
with `--step ...` one of its steps: it writes a line a unit to units.txt, skips those that
are there, and ends with its output. At the unit that the environment names in SLOW_UNIT it
stays for a minute; the steps in MEET, with commas, go on only when all of them have begun.
"""

import fcntl
import os
import pathlib
import sys
import time


def steps(root, *, failing="", seconds=0.0, source=None):
    from experiments.lab.steps import Step

    def step(name, needs=(), inputs=()):
        workdir = root / name
        flags = {
            "fail": name == failing,
            "seconds": seconds,
            "workdir": workdir,
        }
        module = "tests.experiments.study.fake_study"
        output = workdir / "summary.json"
        return Step(name, name, module, flags, inputs, needs, output, 1.0)

    made = root / "a" / "made.txt"
    first = step("a", inputs=(source,) if source else ())
    return [first, step("b", needs=("a",), inputs=(made,)), step("c")]


def run_step(argv):
    given = dict(word.removeprefix("--").split("=", 1) for word in argv)
    workdir = pathlib.Path(given["workdir"])
    if given["fail"] == "true":
        sys.exit("error: told to fail")
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (workdir / "pid.txt").write_text(str(os.getpid()))
        _meet(workdir)
        units = workdir / "units.txt"
        done = units.read_text().split() if units.exists() else []
        for unit in range(len(done), 3):
            slow = os.environ.get("SLOW_UNIT") == str(unit)
            time.sleep(60 if slow else float(given["seconds"]))
            with units.open("a") as file:
                file.write(f"{unit}\n")
            print(f"unit {unit}")
        cores = sorted(os.sched_getaffinity(0))
        (workdir / "cores.txt").write_text(" ".join(map(str, cores)))
        (workdir / "made.txt").write_text("made")
        (workdir / "summary.json").write_text("{}")


def _meet(workdir):
    names = os.environ.get("MEET", "").split(",")
    deadline = time.monotonic() + 60
    while workdir.name in names:
        if all((workdir.parent / name / "pid.txt").exists() for name in names):
            return
        if time.monotonic() > deadline:
            sys.exit("error: the others never began")
        time.sleep(0.01)


def run_study(argv):
    from experiments.study import run

    root = pathlib.Path(argv[0])
    run.plan = lambda config: steps(root, seconds=0.25)
    run.main([f"--workdir={root}", *argv[1:]])


if __name__ == "__main__":
    if sys.argv[1].startswith("--"):
        run_step(sys.argv[1:])
    else:
        run_study(sys.argv[1:])
