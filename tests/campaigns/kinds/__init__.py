"""The kinds of trial: name -> function of the world, a generator and the number."""

from collections.abc import Callable

import numpy as np

from tests.campaigns.kinds import (
    artefacts,
    damage,
    flags,
    interruptions,
    processes,
    records,
    sets,
)
from tests.campaigns.trials import Trial
from tests.campaigns.world import World

# Returns what was done, in words that reproduce it, and the judgement.
Kind = Callable[[World, np.random.Generator, int], tuple[str, Trial]]

KINDS: dict[str, Kind] = {
    "kill": interruptions.kill,
    "term": interruptions.term,
    "int": interruptions.interrupt,
    "disk": interruptions.disk,
    "damage": damage.trial,
    "artefacts": artefacts.trial,
    "data": sets.trial,
    "experts": records.experts,
    "records": records.report,
    "flags": flags.trial,
    "limit": interruptions.limit,
    "processes": processes.trial,
}
