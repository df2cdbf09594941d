"""Real images that distilled sets are compared with: random ones and coresets."""

from collections.abc import Sequence

from distilljax import data
from distilljax.analysis import coresets
from distilljax.core import sampling
from distilljax.types import Batch, RealSet
from experiments.lab.options import parse_choices
from experiments.lab.sets import random_subsets, repeated

RANDOM = "random"

BASELINES = (RANDOM, *coresets.CORESETS)


def parse_baselines(text: str, field: str = "baselines", *, least: int = 1) -> list[str]:
    """Returns the names in a list with commas, at least `least`.

    Raises:
      FieldError: of the option `field`: a name that is not of `BASELINES`, or comes
        twice, or too few.
    """
    return parse_choices(text, field, BASELINES, "baseline", least=least)


def select_baselines(
    names: Sequence[str], train: data.Split, real: RealSet, ipc: int, seeds: int
) -> dict[str, Batch]:
    """Returns name -> `ipc` images a class so chosen, stacked as `random_subsets` does.

    Args:
      names: of `BASELINES`.
      train: `random` draws from it, for each of `seeds` networks anew.
      real: coresets choose from it, once for all networks; its transform is applied to
        all.
      ipc: images a class.
      seeds: number of networks.

    Raises:
      InputError: a class has fewer images.
    """
    sets = {}
    for name in names:
        if name == RANDOM:
            sets[name] = random_subsets(train, ipc, seeds, real.transform)
        else:
            positions = coresets.select(coresets.CORESETS[name], real, ipc)
            sets[name] = repeated(sampling.take(real, positions), seeds)
    return sets
