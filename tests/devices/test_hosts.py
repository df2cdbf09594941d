"""Commands as several processes on one machine: the numbers of one.

Kills at random moments: `python -m tests.campaigns --kinds=processes`.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from distilljax import launch, processes, terminal
from distilljax.config import FieldError
from distilljax.types import InputError
from experiments.distill import run as distill_run
from experiments.lab.options import ProcessesOption
from tests.devices import hosts


@pytest.fixture
def folder(tmp_path):
    hosts.make(tmp_path)
    return tmp_path


LATE = """
import os, runpy, sys, time
from distilljax import terminal

wait, run = terminal.wait, sys.argv[1]

def late(error):
    time.sleep(3 * ("--process_id=1" in sys.argv))
    wait(error)
    time.sleep(3 * ("--process_id=1" in sys.argv))

terminal.wait = late
del sys.argv[0]
runpy.run_module(run, run_name="__main__", alter_sys=True)
"""


def start(argv, num, by_slurm=False, late=False):
    """Starts a command as processes, which find each other by flags or as on Slurm.

    Args:
      argv: the command after `python -m`.
      num: processes.
      by_slurm: they find each other by Slurm's variables.
      late: the second takes seconds to end, as on a busy machine.
    """
    port, started = hosts.free_port(), []
    for i in range(num):
        flags = [
            "--distributed", f"--coordinator_address=127.0.0.1:{port}",
            f"--num_processes={num}", f"--process_id={i}",
        ]  # fmt: skip
        env = dict(os.environ)
        if by_slurm:
            env |= {
                "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "127.0.0.1",
                "SLURM_NTASKS": str(num), "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i),
                "JAX_COORDINATOR_PORT": str(port),
            }  # fmt: skip
        given = flags[: 1 if by_slurm else None] if num > 1 else []
        program = ("-c", LATE) if late else ("-m",)
        command = [sys.executable, *program, *argv, *given]
        started.append(
            subprocess.Popen(
                command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    return started


def ended(started):
    """Returns (exit code, stdout, stderr) of each."""
    try:
        said = [one.communicate(timeout=hosts.PATIENCE) for one in started]
    finally:
        for one in started:
            one.kill()
    return [(one.returncode, *texts) for one, texts in zip(started, said, strict=True)]


def argv(case, folder, workdir):
    return [f"experiments.{hosts.CASES[case][0]}", *hosts.argv(case, folder, workdir)]


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_and_the_first_writes(folder):
    two, one = folder / "two", folder / "one"
    first, second = ended(start(argv("dm", folder, two), 2, by_slurm=True))
    assert (first[0], second) == (0, (0, "", "")), (first, second)
    assert "the distilled set" in first[1]
    assert "[Gloo]" not in "".join(first[1:])
    config = launch.parse(distill_run.Config, hosts.argv("dm", folder, one))
    distill_run.run(config)
    hosts.assert_same_numbers(two, one)


@pytest.mark.slow
def test_a_sweep_of_two_processes_is_that_of_one(folder):
    """Also where a run fails in both, and the others go on."""
    sweep = ["--seeds=0,1", "--sweep.dm.image_lr=0.1,1e38"]
    several, alone = folder / "several", folder / "alone"
    ours = ended(start([*argv("dm", folder, several), *sweep], 2))
    (theirs,) = ended(start([*argv("dm", folder, alone), *sweep], 1))
    for code, _, err in (ours[0], theirs):
        assert code == 2
        assert err.splitlines()[-1].startswith(
            "error: 2 of 4 runs failed; seed0-image_lr1e"
        )
    assert ours[1] == (2, "", "")
    assert (several / "sweep.csv").exists()
    for name in ("seed0-image_lr0.1", "seed1-image_lr0.1"):
        hosts.assert_same_numbers(several / name, alone / name)


def test_processes_are_not_varied():
    configs = launch.parse_many(distill_run.Config, ["--sweep.distributed=true,false"])
    with pytest.raises(InputError, match="all runs have the same processes"):
        terminal.join(list(configs.values()))


def test_options_of_processes_are_checked():
    for values, said in (
        ({"process_id": 0}, "only with --distributed"),
        ({"coordinator_address": "a:1"}, "only with --distributed"),
        ({"distributed": True, "num_processes": 2, "process_id": 2}, "give 0..1"),
    ):
        with pytest.raises(FieldError, match=said):
            ProcessesOption(**values)


def test_a_run_is_the_same_whatever_processes_it_has(folder):
    from experiments.lab.workdir import identity_of

    plain = launch.parse(distill_run.Config, ["--seed=3"])
    given = ["--distributed", "--coordinator_address=a:1", "--num_processes=2"]
    several = launch.parse(distill_run.Config, ["--seed=3", *given, "--process_id=1"])
    assert identity_of(several) == identity_of(plain)


def test_one_process_needs_none_of_it():
    calls = []
    assert processes.once(calls.append)(3) is None
    assert calls == [3]
    processes.same("the data", "a")
    assert (processes.count(), processes.index()) == (1, 0)
    with pytest.raises(InputError, match="do not find each other"):
        processes.start(None, None, None)


def only_line(text, pattern):
    """The text is one line, of this form."""
    assert re.fullmatch(pattern + r"[^\n]*\n", text), text


@pytest.mark.slow
def test_every_command_with_two_processes(folder):
    """Each method, too; in one pair of processes, one after the other."""
    names = sorted(hosts.CASES, key=lambda name: name != "experts")  # tm reads them
    program, alone = ["tests.devices.hosts", str(folder), *names], folder / "alone"
    (done,) = ended(start(program, 1))
    assert done[0] == 0, done
    port = hosts.free_port()
    pair = [
        subprocess.Popen(
            [sys.executable, "-m", *program, "--", str(port), "2", str(i)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    for code, *said in ended(pair):
        assert code == 0, said
    for name in names:
        hosts.assert_same_numbers(folder / "of2" / name, alone / name)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_others_with_one_line(folder, victim):
    long = [*argv("dm", folder, folder / "long"), "--steps=100000"]
    started = start(long, 2)
    checkpoints = folder / "long" / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("[0-9]*")), started)
    started[victim].send_signal(signal.SIGKILL)
    survivor = ended(started)[1 - victim]
    assert survivor[0] == 3, survivor
    lines = [line for line in survivor[2].splitlines() if "outer loss" not in line]
    assert len(lines) == 1, survivor
    assert "another process of this run has ended" in lines[0]
    assert list(checkpoints.glob("[0-9]*"))


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_after_a_checkpoint(folder):
    long = [*argv("dm", folder, folder / "long"), "--steps=100000"]
    started = start(long, 2, late=True)
    checkpoints = folder / "long" / "checkpoints"
    wait_for(lambda: list(checkpoints.glob("[0-9]*")), started)
    started[1].send_signal(signal.SIGTERM)
    first, second = ended(started)
    assert (first[0], second[0]) == (130, 130)
    assert first[2].count("interrupted; run the same command again") == 1
    assert second[1:] == ("", "")


@pytest.mark.slow
def test_wrong_input_is_one_line(folder):
    """Of the first process alone where all have it, also if it waits for the other."""
    base = argv("dm", folder, folder / "refused")
    for flag, said in (
        ("--devices=3", "--devices=3: there are 2 (cpu)"),
        ("--devices=1", "--devices=1: 2 processes have as many each"),
        (f"--workdir={folder}", f"workdir {folder} holds files of something else"),
    ):
        first, second = ended(start([*base, flag], 2, late=True))
        assert (first[0], second[0]) == (2, 2)
        only_line(first[2], re.escape(f"error: {said}"))
        assert second[1:] == ("", "")


@pytest.mark.slow
def test_processes_that_differ_are_refused(folder):
    started = start(argv("dm", folder, folder / "a"), 2)
    other = [*argv("dm", folder, folder / "a"), "--seed=5"]
    started[1].kill()
    started[1].communicate()
    flags = started[0].args[-3:]
    again = [*flags[:-1], "--process_id=1", "--distributed"]
    started[1] = subprocess.Popen(
        [sys.executable, "-m", *other, *again],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    first, second = ended(started)
    assert (first[0], second[0]) == (2, 2), (first, second)
    only_line(first[2], "error: the command of process 1 and of process 0 differ")
    assert second[1:] == ("", "")


def wait_for(there, started):
    until = time.monotonic() + hosts.PATIENCE
    while not there():
        if time.monotonic() > until or any(one.poll() is not None for one in started):
            pytest.fail(str(ended(started)))
        time.sleep(0.2)


def test_the_cases_name_every_command_that_takes_processes():
    root = pathlib.Path(distill_run.__file__).parents[1]
    taking = {
        path.parent.name
        for path in root.glob("*/*.py")
        if "ProcessesOption" in path.read_text() and path.parent.name != "lab"
    }
    assert taking == {command for command, _ in hosts.CASES.values()}
