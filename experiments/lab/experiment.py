"""An experiment as `report` and `study` see it, and the table of all of them."""

import importlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from experiments import EXPERIMENTS
from experiments.lab.claims import Claim, Record
from experiments.lab.html import Markup
from experiments.lab.paper import Section
from experiments.lab.steps import MadeSets, Step, Study

Fact = tuple[str, str]  # name, text
Contents = Callable[[Sequence[Record[Any]]], list[Markup]]


def _no_steps(_: Study) -> Iterable[Step]:
    return ()


def _no_notes(_: Sequence[Record[Any]]) -> list[str]:
    return []


def _no_facts(_: Sequence[Record[Any]]) -> list[Fact]:
    return []


class Experiment(NamedTuple):
    """What an experiment adds to the report and to the study.

    Functions of records are given those of this experiment alone.
    """

    name: str  # of the command, `experiments.NAME`
    summary: type[Any]  # the `TypedDict` of its `summary.json`
    title: Callable[[Record[Any]], str]  # a run in a few words: its subject, its scale
    sets: Callable[[Record[Any]], list[str]]  # files of the distilled sets that it reads
    # What a record is about; two records of a report may not share any.
    subjects: Callable[[Record[Any]], set[Hashable]]
    # Networks trained: settings with `model` and, if it has one, `width`.
    networks: Callable[[Record[Any]], Iterable[Mapping[str, Any]]]
    claims: tuple[Claim, ...] = ()
    contents: tuple[tuple[Section, Contents], ...] = ()  # parts of the page's sections
    captions: Mapping[str, str] = {}  # picture -> its caption, in order
    notes: Callable[[Sequence[Record[Any]]], list[str]] = _no_notes  # on scale
    facts: Callable[[Sequence[Record[Any]]], list[Fact]] = _no_facts  # at the top
    steps: Callable[[Study], Iterable[Step]] = _no_steps  # of the study
    make_sets: Callable[[Study], MadeSets] | None = None  # distils the study's sets


def load(name: str) -> Experiment:
    """Returns the experiment of that name."""
    return importlib.import_module(f"experiments.{name}.report").EXPERIMENT


def load_all() -> dict[str, Experiment]:
    """Returns all experiments by name, in the order of `EXPERIMENTS`."""
    return {name: load(name) for name in EXPERIMENTS}
