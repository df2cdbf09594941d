"""Batches of real data, sampled from a key inside jit."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from distilljax import checks
from distilljax.types import Array, Batch, InputError, Key, RealSet


def take(real: RealSet, positions: Array) -> Batch:
    """Returns the images at `positions`, i32[b], transformed, with one-hot labels.

    >>> from distilljax import data
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> split = data.Split(images, np.arange(4) % 2)
    >>> real = data.on_device(split, data.Identity(), num_classes=2)
    >>> sampling.take(real, jnp.array([0, 3])).labels.tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Raises:
      InputError: positions that are no integers or, unless traced, out of range.
    """
    checks.real_set(real)
    positions = checks.indices(positions, real.labels.shape[0], "positions")
    num_classes = real.class_sizes.shape[0]
    labels = jax.nn.one_hot(real.labels[positions], num_classes, dtype=jnp.float32)
    return Batch(real.transform(real.images[positions]), labels)


def batch(key: Key, real: RealSet, size: int) -> Batch:
    """Samples `size` images uniformly without replacement.

    >>> from distilljax import data
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> split = data.Split(images, np.arange(4) % 2)
    >>> real = data.on_device(split, data.Identity(), num_classes=2)
    >>> sampling.batch(jax.random.key(0), real, size=4).labels.sum(0).tolist()
    [2.0, 2.0]

    Raises:
      InputError: `size` is below 1, or exceeds the number of images.
    """
    checks.one_key(key)
    checks.real_set(real)
    num, size = real.labels.shape[0], checks.positive(size, "size")
    if size > num:
        raise InputError(f"a batch of {size} was asked of a data set of {num} images")
    _, positions = jax.lax.top_k(jax.random.bits(key, (num,), jnp.uint32), size)
    return take(real, positions)


def class_positions(key: Key, real: RealSet, per_class: int) -> Array:
    """Samples the positions of `per_class` images of every class, i32[k, per_class].

    Sampling is without replacement where the class is large enough; a smaller class is
    repeated in random order.

    >>> from distilljax import data
    >>> split = data.Split(np.zeros((4, 8, 8, 1), np.uint8), np.arange(4) % 2)
    >>> real = data.on_device(split, data.Identity(), num_classes=2)
    >>> found = sampling.class_positions(jax.random.key(0), real, per_class=2)
    >>> sorted(found[1].tolist())
    [1, 3]
    """
    checks.one_key(key)
    checks.real_set(real)
    per_class = checks.positive(per_class, "per_class")
    k, width = real.class_index.shape
    columns = jnp.arange(width)
    inside = columns < real.class_sizes[:, None]
    scores = jnp.where(inside, jax.random.uniform(key, (k, width), jnp.float32), -1.0)
    _, order = jax.lax.top_k(scores, min(per_class, width))
    columns = jnp.arange(per_class) % real.class_sizes[:, None]
    return jnp.take_along_axis(
        real.class_index, jnp.take_along_axis(order, columns, axis=1), axis=1
    )


def class_batch(key: Key, real: RealSet, per_class: int) -> Array:
    """Samples `per_class` transformed images of every class, f32[k, per_class, h, w, c].

    Their positions are those of `class_positions`, which are small: of many classes one
    reads and transforms the images piece by piece.

    >>> from distilljax import data
    >>> images = np.zeros((4, 8, 8, 1), np.uint8)
    >>> split = data.Split(images, np.arange(4) % 2)
    >>> real = data.on_device(split, data.Identity(), num_classes=2)
    >>> sampling.class_batch(jax.random.key(0), real, per_class=2).shape
    (2, 2, 8, 8, 1)
    """
    positions = class_positions(key, real, per_class)
    images = take(real, positions.reshape(-1)).images
    return images.reshape(*positions.shape, *images.shape[1:])


def even_batches(num: int, most: int | None) -> tuple[int, int]:
    """Returns the sizes of an even split of `num` images into batches of at most `most`.

    >>> sampling.even_batches(500, 256)
    (250, 2)

    Returns:
      Batch size and batches per epoch: 250 and 2 for 500 images and 256. The remainder of
      the division is dropped in each epoch. `most` None: one batch of all images.
    """
    most = num if most is None else checks.positive(most, "most")
    per_epoch = math.ceil(num / min(most, num))
    return num // per_epoch, per_epoch


def epochs(
    key: Key, num: int, size: int, num_steps: int, per_epoch: int | None = None
) -> Array:
    """Returns the positions of minibatches from successive permutations of 0..num-1.

    >>> found = sampling.epochs(jax.random.key(0), num=4, size=2, num_steps=2)
    >>> sorted(found.ravel().tolist())
    [0, 1, 2, 3]

    Args:
      key: PRNG key of the permutations.
      num: number of images.
      size: batch size.
      num_steps: number of batches.
      per_epoch: batches per permutation; num // size if None. The rest of the permutation
        is dropped.

    Returns:
      i32[num_steps, size].

    Raises:
      InputError: a permutation has too few images.
    """
    checks.one_key(key)
    num, size = checks.integer(num, "num"), checks.positive(size, "size")
    num_steps = checks.integer(num_steps, "num_steps")
    per_epoch = per_epoch or max(1, num // size)
    if per_epoch * size > num:
        which = "a batch" if per_epoch == 1 else f"{per_epoch} batches"
        verb = "was" if per_epoch == 1 else "were"
        raise InputError(f"{which} of {size} {verb} asked of a data set of {num} images")
    num_epochs = -(-num_steps // per_epoch)

    def permutation(key: Key) -> Array:
        return jax.random.permutation(key, num)[: per_epoch * size].reshape(-1, size)

    batches = jax.vmap(permutation)(jax.random.split(key, num_epochs))
    return batches.reshape(-1, size)[:num_steps]


def minibatches(
    key: Key, data: Batch, most: int | None, num_steps: int
) -> tuple[Array, Callable[[Array], Batch]]:
    """Returns the minibatches of an inner loop on a small set.

    >>> from distilljax.types import Batch
    >>> small = Batch(jnp.zeros((4, 8, 8, 1)), jnp.eye(4, 2))
    >>> key = jax.random.key(0)
    >>> positions, batch_of = sampling.minibatches(key, small, most=2, num_steps=6)
    >>> positions.shape, batch_of(positions[0]).images.shape
    ((6, 2), (2, 8, 8, 1))

    Args:
      key: PRNG key of their order.
      data: the set.
      most: maximum batch size, split evenly, see `even_batches`; None for full batches in
        the order of the set.
      num_steps: number of batches.

    Returns:
      Positions, i32[num_steps, size], and the function from a row of them to a batch.
    """
    num = data.labels.shape[0]
    size, per_epoch = even_batches(num, most)
    positions = epochs(key, num, size, num_steps, per_epoch)

    def read(where: Array) -> Batch:
        return data if size == num else jax.tree.map(lambda x: x[where], data)

    return positions, read
