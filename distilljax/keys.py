"""Random keys of a distillation and of what it is compared with, from one root.

`fold_in(key, i)` is `split(key, n)[i]` with JAX's default generator. So two purposes that
fold small numbers into one root share random numbers; each purpose has a root here.

| root | for |
|---|---|
| the key itself | the outer loop of a distillation (`loop.run`), and expert trajectories |
| `start_and_test(key)` | the start of a distilled set, and its final test |
| `fresh(key)` | networks that look at finished sets |
| `expert(key)` | the one network that labels random real images |
| `subset_seed(number, seed)` | random real images beside network `number` |
"""

import hashlib
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distilljax.types import InputError, Key

GENERATOR = "threefry2x32"  # of JAX by default


def number_of(name: str) -> int:
    """Returns the first four bytes of the SHA-256 of a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def generator() -> str:
    """Returns the generator of random numbers, with what JAX's settings change of it.

    >>> keys.generator() == keys.GENERATOR
    True
    """
    settings: Any = jax.config
    changed = "" if settings.jax_threefry_partitionable else ", not partitionable"
    if offset := settings.jax_random_seed_offset:
        changed += f", seeds shifted by {offset}"
    return f"{settings.jax_default_prng_impl}{changed}"


def as_key(key: Any) -> Key:
    """Returns a typed PRNG key from a seed, a typed key or a legacy `jax.random.PRNGKey`.

    Raises:
      InputError: none of these, or an array of several keys.
    """
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        typed = key
    elif isinstance(key, jax.Array | np.ndarray) and key.ndim and key.dtype == np.uint32:
        try:
            typed = jax.random.wrap_key_data(jnp.asarray(key))
        except (TypeError, ValueError) as error:
            raise InputError(f"key: {error}; give a seed such as 0") from None
    else:
        try:
            seed = operator.index(key)
        except TypeError:
            raise InputError(
                f"key={key!r:.40}: give a seed such as 0, or jax.random.key(0)"
            ) from None
        if not 0 <= seed < 2**31:
            raise InputError(f"key={seed}: a seed is 0 to {2**31 - 1}")
        typed = jax.random.key(seed)
    if typed.shape:
        raise InputError(f"key holds {list(typed.shape)} keys; give one, such as key[0]")
    return typed


def seed_of(key: Key) -> int:
    """Returns the words of a key as one number, so that `seed_of(jax.random.key(7))` is 7.

    That holds for JAX's default generator. The number seeds what is drawn on the host.
    """
    words = np.asarray(jax.random.key_data(key)).ravel().tolist()
    return sum(word << (32 * place) for place, word in enumerate(reversed(words)))


def start_and_test(key: Key) -> Key:
    """Returns the keys of a distillation's start and of its test, key[2].

    Apart from those that `loop.run` splits off the key itself.
    """
    return jax.random.split(jax.random.fold_in(key, 1 << 20))


def fresh(key: Key) -> Key:
    """Returns the root of networks that look at finished sets.

    Experts, and the networks of a distillation, take their keys from the key itself. From
    that root the first networks would begin at the very weights that the experts of `tm`
    began at, for which the set was made; a set is better there than on networks it has
    never met.
    """
    return jax.random.fold_in(key, number_of("networks that look"))


def expert(key: Key) -> Key:
    """Returns the key of the network whose labels random real images are compared under."""
    return jax.random.fold_in(key, number_of("labels of an expert"))


def subset_seed(number: int, seed: int = 0) -> int:
    """Returns the seed that draws the random real images of network `number`.

    Args:
      number: of the network, below 2^20.
      seed: of all networks; another one draws other images, so that what is found by
        several seeds is independent.
    """
    return 1000 + number + (seed << 20)
