"""Every random key of the experiments, made from `--seed` in one place.

Each purpose has a root, as in `distilljax.keys`, which has those of the library.

| root | for |
|---|---|
| `key(seed)` | the outer loop of a distillation (`loop.run`), and expert trajectories |
| `distillation(seed)` | the start of a distilled set, and its final test |
| `fresh_key(seed)` | networks of every experiment on finished sets |
| `expert(seed)` | the one network that labels random real images |
| `difficulty(seed)` | the networks that rank training images by difficulty |
| `probes(seed, name)` | the random probes of a measurement, the same along a curve |
| `part(seed, number)` | the images of a set that network `number` is trained on |

Random real images are drawn by `distilljax.keys.subset_seed(number, seed)`.
"""

import jax

from distilljax import keys
from distilljax.types import Key


def fresh_key(seed: int) -> Key:
    """Returns the root key of an experiment on finished sets; see `keys.fresh`."""
    return keys.fresh(jax.random.key(seed))


def distillation(seed: int) -> Key:
    """Returns the keys of a distillation's start and of its test, key[2]."""
    return keys.start_and_test(jax.random.key(seed))


def expert(seed: int) -> Key:
    """Returns the key of the network whose labels random real images are compared under."""
    return keys.expert(jax.random.key(seed))


def difficulty(seed: int) -> Key:
    """Returns the key of the networks that rank training images by difficulty."""
    return jax.random.fold_in(jax.random.key(seed), keys.number_of("difficulty"))


def probes(seed: int, name: str) -> Key:
    """Returns the key of a probe: one for all points, runs and sets of its curves."""
    return jax.random.fold_in(
        jax.random.fold_in(fresh_key(seed), 2**31), keys.number_of(name)
    )


def images_of(seed: int) -> list[int]:
    """Returns what the identity of random real images holds of the seed that draws them.

    Nothing for seed 0: what was kept before a seed drew images of its own remains.
    """
    return [keys.subset_seed(0, seed)] if seed else []


def part(seed: int, number: int) -> Key:
    """Returns the key that chooses the part of a set for network `number`."""
    return jax.random.fold_in(parts_key(seed), number)


def parts_key(seed: int) -> Key:
    """Returns the root of the keys that choose parts of a set."""
    return jax.random.fold_in(jax.random.key(seed), keys.number_of("part of a set"))
