"""The whole study: every experiment in order, and one report of what they found.

    python -m experiments.study
    python -m experiments.study --scale=night --data_dir=DIR
    python -m experiments.study --scale=paper --data_dir=DIR --minutes=9
    python -m experiments.study --artefacts=a/distilled.npz,b/distilled.npz
    python -m experiments.study --plan

Yang et al. 2024: do networks trained on real images recognise distilled ones, and do real
images help beside them (`recognition`, `mixing`, sec. 3); do they behave like a network
that was stopped early (`agreement`, 4.1), when are they recognised along training, how
sharp is the loss on them (`dynamics`, 4.2 and 4.3), and on what do single images act
(`influence`, `attributes`, 5). `labels`, `subsets`, `connectivity` and `spectrum` test
claims of later papers. The last step is `report`, a page with a verdict on each claim.

| --scale | data | networks | time on two CPU cores |
|---|---|---|---|
| laptop | embedded Fashion-MNIST | ConvNets of width 16 and 32 | 13 to 20 minutes |
| night | CIFAR-10 | the same | an hour |
| published | CIFAR-10 | the paper's, width 128 | about five hours, an estimate |
| paper | CIFAR-10 | the paper's, width 128 | made for a GPU |

What they found is in `experiments/results/study_embedded`, `study_cifar10` and, of
`published`, `study_cifar10_width128`; `paper` has not been run.

`laptop` and `night` look at the sets in `experiments/artefacts` of width 32, `published` at
the strongest there of each method, and `paper` distils its own first, by
`--preset=cifar10_ipc10`. Sets of different preprocessing or networks, these or those of
`--artefacts`, are shown to networks of their own: an experiment that shows all sets to one
network has a step for each kind, `dynamics` with a network as wide as that of the sets.

The first two are narrower and shorter than the paper, and every page made from them says
so. They look at the influence of single images on sets of one image a class; the paper
does at ten.

Each step is an experiment's command of its own, shown before it runs, with a working
directory under that of the study. A step that is finished, and whose inputs are as they
were, is not run again; an interrupted one is resumed. `--minutes` ends the
command in time, with exit code 75, for machines that are lent in pieces: the same command
goes on. `--seed` is that of every step, experts and sets included where they are distilled:
`experiments.report --outer_seeds` joins such studies. `--steps` runs only some. A step that
fails stops those that need it and no others; the command then ends with an error.

Without an accelerator several steps are at work at once (`--jobs`), each on cores of its
own, since a narrow network trains nearly as fast on one core as on two. What they print is
then marked with their names, and kept in `logs`.
"""

import sys
from collections.abc import Sequence
from typing import TypedDict

from distilljax import launch
from distilljax.disk.files import write_json
from distilljax.types import InputError
from experiments.lab import queue
from experiments.lab.progress import duration
from experiments.lab.workdir import identity_of
from experiments.study.plan import Config, plan, workdir_of

NAME = "experiments.study"
LEDGER = "study.jsonl"


class Summary(TypedDict):
    """The contents of `study.json`, but for the settings."""

    finished: bool
    steps: dict[str, str]  # name -> "done before", "done", "cut" or "to do"
    seconds: float  # of this command
    report: str | None  # the page


def run(config: Config) -> Summary:
    """Runs the missing steps; returns the state of every step.

    Raises:
      InputError: options that do not fit; steps that failed.
    """
    steps, root = plan(config), workdir_of(config)
    if config.plan:
        state = queue.show_plan(steps, queue.Ledger(root / LEDGER))
        done = set(state.values()) == {"done before"}
        return {"finished": done, "steps": state, "seconds": 0.0, "report": None}
    with queue.claimed(root, "study"):
        outcome = queue.run_queue(
            steps,
            queue.Ledger(root / LEDGER),
            root / "logs",
            jobs=config.jobs,
            minutes=config.minutes,
        )
        page = root / "report.html"
        summary: Summary = {
            "finished": outcome.finished,
            "steps": outcome.state,
            "seconds": outcome.seconds,
            "report": str(page) if page.exists() else None,
        }
        write_json(root / "study.json", {**summary, "config": identity_of(config)})
    if outcome.broken:
        failed = ", ".join(f"{name} ({why})" for name, why in outcome.broken.items())
        raise InputError(
            f"not all of the study is done: {failed}; everything else is kept, and the "
            "same command tries these again"
        )
    if outcome.finished:
        queue.say(
            f"finished in {duration(outcome.seconds)}, {duration(outcome.work)} of work "
            f"in {root}"
        )
    return summary


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; exit code 75 where it ran out of `--minutes`."""

    def command(config: Config) -> None:
        summary = run(config)
        if not (summary["finished"] or config.plan):
            sys.exit(queue.OUT_OF_TIME)

    launch.main(Config, command, module=NAME, summary=__doc__, argv=argv)
