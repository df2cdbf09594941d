"""Every random key of the experiments, made from `--seed` in one place.

`fold_in(key, i)` is `split(key, n)[i]` with JAX's default generator. So two purposes that
fold small numbers into one root share random numbers; each purpose has a root here.

| root | for |
|---|---|
| `key(seed)` | the outer loop of a distillation (`loop.run`), and expert trajectories |
| `distillation(seed)` | the start of a distilled set, and its final test |
| `fresh_key(seed)` | networks of every experiment on finished sets |
| `expert(seed)` | the one network that labels random real images |
| `probes(seed, name)` | the random probes of a measurement, the same along a curve |
| `part(seed, number)` | the images of a set that network `number` is trained on |
| `subset_seed(number)` | random real images beside network `number` |
"""

import hashlib

import jax

from distilljax.types import Key


def _number(name: str) -> int:
    """Returns the first four bytes of the SHA-256 of a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def fresh_key(seed: int) -> Key:
    """Returns the root key of an experiment on finished sets.

    Experts, and the networks of a distillation, take their keys from `key(seed)` itself.
    From that root the first networks of an experiment would begin at the very weights that
    the experts of `tm` began at, for which the set was made; a set is better there than on
    networks it has never met.
    """
    return jax.random.fold_in(jax.random.key(seed), _number("networks that look"))


def distillation(seed: int) -> Key:
    """Returns the keys of a distillation's start and of its test, key[2].

    Apart from those that `loop.run` splits off `key(seed)`.
    """
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), 1 << 20))


def expert(seed: int) -> Key:
    """Returns the key of the network whose labels random real images are compared under."""
    return jax.random.fold_in(jax.random.key(seed), _number("labels of an expert"))


def probes(seed: int, name: str) -> Key:
    """Returns the key of a probe: one for all points, runs and sets of its curves."""
    return jax.random.fold_in(jax.random.fold_in(fresh_key(seed), 2**31), _number(name))


def part(seed: int, number: int) -> Key:
    """Returns the key that chooses the part of a set for network `number`."""
    return jax.random.fold_in(parts_key(seed), number)


def parts_key(seed: int) -> Key:
    """Returns the root of the keys that choose parts of a set."""
    return jax.random.fold_in(jax.random.key(seed), _number("part of a set"))


def subset_seed(number: int) -> int:
    """Returns the seed that draws the random real images of network `number`."""
    return 1000 + number
