"""A few trials of each kind of campaign; the command runs as many as are asked for."""

import pytest

from tests.campaigns.__main__ import main, run_kind
from tests.campaigns.kinds import KINDS
from tests.campaigns.trials import Ended, judge, prepare_processes
from tests.campaigns.world import World
from tests.cases import some

# Numbers of trials, of seed 0, that take a second or two.
SHORT = {
    "kill": (3,),
    "term": (0,),
    "int": (6,),
    "disk": (0,),
    "damage": (4, 25),
    "artefacts": (1, 2, 3),
    "data": (0, 1, 2),
    "experts": (0,),
    "records": (0,),
    "flags": (0, 1, 2),
    "limit": (0,),
}
LONGER = {"kill", "term", "int", "disk", "experts", "limit"}  # 5 to 25 s each
COUNT = {"processes": 8}  # of many; each is a minute of several processes


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    prepare_processes()
    with World(tmp_path_factory.mktemp("campaign") / "world").entered() as world:
        yield world


@pytest.mark.parametrize("kind", some(SHORT, *(SHORT.keys() - LONGER)))
def test_a_few_trials(world, kind):
    tally = run_kind(world, kind, 0, SHORT[kind])
    assert not tally.wrong
    assert sum(tally.verdicts.values()) == len(SHORT[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_trials(kind):
    assert main([f"--kinds={kind}", "--seed=1", f"--count={COUNT.get(kind, 25)}"]) == 0


@pytest.mark.parametrize(
    ("ended", "verdict"),
    [
        (Ended(0, "done", "", 1.0), "right"),
        (Ended(2, "", "error: no such file\n", 1.0), "refused"),
        (Ended(2, "", "error: one\nerror: two\n", 1.0), "wrong"),
        (Ended(2, "", "", 1.0), "wrong"),
        (Ended(1, "", "", 1.0), "wrong"),
        (Ended(-11, "", "", 1.0), "wrong"),
        (Ended(0, "", "Traceback (most recent call last):\n", 1.0), "wrong"),
    ],
)
def test_what_is_wrong(ended, verdict):
    assert judge(ended).verdict == verdict


def test_other_numbers_are_wrong():
    assert judge(Ended(0, "", "", 1.0), lambda: "0.5, not 0.6").verdict == "wrong"
    assert judge(Ended(0, "", "", 1.0), must_refuse=True).verdict == "wrong"
