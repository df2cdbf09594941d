"""Coresets: representative real images of each class, a baseline for distilled sets.

A selection rule, `(features f32[m, d], num) -> i32[num]`, is greedy and deterministic: the
selection for a smaller `num` is a prefix of that for a larger one. Ties go to the lower
position. Memory is O(m d), time O(num m d).

Rules based on the training of a network, such as forgetting (Toneva et al. 2019, arXiv
1812.05159), are not included: each needs training runs on the whole set.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from distilljax import checks, varying
from distilljax.types import Array, InputError, Key, RealSet

Chooser = Callable[[Array, int], Array]

_CHUNK = 500  # images whose features are computed at a time


def _centred(features: Array, num: int) -> tuple[Array, Array]:
    """Returns centred features and their squared norms, f32[m, d] and f32[m]."""
    if features.ndim != 2:
        raise InputError(f"features must be [m, d], got {list(features.shape)}")
    if not 1 <= num <= features.shape[0]:
        raise InputError(f"{num} were to be chosen of {features.shape[0]} points")
    centred = features - features.mean(axis=0)
    return centred, jnp.square(centred).sum(axis=1)


def _products(features: Array, vector: Array) -> Array:
    return jnp.matmul(features, vector, precision=jax.lax.Precision.HIGHEST)


def random_part(key: Key, num_classes: int, per_class: int, num: int) -> Array:
    """Selects random images of each class of a class-ordered set, without replacement.

    Args:
      key: random key; with one key a smaller `num` is a part of a larger one.
      num_classes: k.
      per_class: images of each class in the set, which holds class 0 first, then 1.
      num: images to select of each class.

    Returns:
      i32[k num], positions, class-ordered.

    Raises:
      InputError: `num` is not within 1..per_class.
    """
    if not 1 <= num <= per_class:
        raise InputError(f"{num} were to be chosen of {per_class} images of each class")
    checks.one_key(key)
    keys = jax.random.split(key, num_classes)
    orders = jax.vmap(lambda one: jax.random.permutation(one, per_class))(keys)
    starts = per_class * jnp.arange(num_classes)[:, None]
    return (starts + orders[:, :num]).reshape(-1).astype(jnp.int32)


def herding(features: Array, num: int) -> Array:
    """Selects points whose mean is close to the mean of all points (herding).

    p_t = argmin over x not selected of || mu - (x + sum_{s<t} p_s) / t ||, Welling 2009 in
    the form of iCaRL (Rebuffi et al. 2017, arXiv 1611.07725, algorithm 4).

    Departures: iCaRL first scales features to unit norm, here they are used as given;
    Welling's herding may select a point twice, here points are distinct.

    Args:
      features: f32[m, d].
      num: number of points to select, 1..m; static.

    Returns:
      i32[num], positions in order of selection.

    Raises:
      InputError: features of the wrong shape, or fewer points than `num`.
    """
    centred, norms = _centred(features, num)

    def pick(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        total, free = carry
        # || total + x ||^2 - || total ||^2; the last term is the same for every x.
        gaps = norms + 2 * _products(centred, total)
        best = jnp.argmin(jnp.where(free, gaps, jnp.inf)).astype(jnp.int32)
        return (total + centred[best], free.at[best].set(False)), best

    start = jnp.zeros_like(centred[0]), jnp.ones(norms.shape, bool)
    return varying.scan(pick, start, None, length=num)[1]


def k_centre(features: Array, num: int) -> Array:
    """Selects points that cover all others: greedy farthest-first (k-centre).

    p_t = argmax over x of min_{s<t} || x - p_s ||, at most twice the best possible
    covering radius (Sener & Savarese 2018, arXiv 1708.00489, algorithm 1).

    Departures: the paper starts from the labelled points; here p_1 is the point nearest to
    the mean.

    Args:
      features: f32[m, d].
      num: number of points to select, 1..m; static.

    Returns:
      i32[num], positions in order of selection.

    Raises:
      InputError: features of the wrong shape, or fewer points than `num`.
    """
    centred, norms = _centred(features, num)

    def cover(nearest: Array, latest: Array) -> Array:
        """Updates squared distances to the nearest selected point; -1 if selected."""
        gaps = norms + norms[latest] - 2 * _products(centred, centred[latest])
        return jnp.minimum(nearest, jnp.maximum(gaps, 0)).at[latest].set(-1)

    def pick(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        nearest, latest = carry
        nearest = cover(nearest, latest)
        return (nearest, jnp.argmax(nearest).astype(jnp.int32)), latest

    start = jnp.full_like(norms, jnp.inf), jnp.argmin(norms).astype(jnp.int32)
    return varying.scan(pick, start, None, length=num)[1]


CORESETS: dict[str, Chooser] = {"herding": herding, "k_centre": k_centre}


def pixels(images: Array) -> Array:
    """Returns the preprocessed pixels as features, f32[b, h, w, c] -> f32[b, h * w * c]."""
    return images.reshape(images.shape[0], -1)


def select(
    choose: Chooser,
    real: RealSet,
    num_per_class: int,
    features: Callable[[Array], Array] = pixels,
) -> Array:
    """Selects images of each class, one class on the device at a time.

    Not for use inside jit: classes differ in size.

    Args:
      choose: selection rule, such as `herding` or `k_centre`.
      real: the set to select from.
      num_per_class: number of images selected per class.
      features: preprocessed f32[b, h, w, c] -> f32[b, d], the feature space. The papers use
        a network trained on the whole set.

    Returns:
      i32[k * num_per_class], positions in `real`: class-ordered, in order of selection
      within a class; `sampling.take` gives the images.

    Raises:
      InputError: a class with fewer images; features of the wrong shape or not finite.
    """
    num_per_class = checks.integer(num_per_class, "num_per_class")
    sizes = real.class_sizes.tolist()
    smallest = min(sizes)
    if not 1 <= num_per_class <= smallest:
        raise InputError(
            f"num_per_class={num_per_class}: class {sizes.index(smallest)} has {smallest} "
            f"images; choose 1 to {smallest}"
        )

    @jax.jit
    def compute(real: RealSet, positions: Array) -> Array:
        return features(real.transform(real.images[positions]))

    chooser = jax.jit(choose, static_argnums=1)
    chosen = []
    for label, size in enumerate(sizes):
        members = real.class_index[label, :size]
        parts = [compute(real, members[i : i + _CHUNK]) for i in range(0, size, _CHUNK)]
        points = jnp.concatenate(parts)
        if not jnp.isfinite(points).all():
            raise InputError(f"features of class {label} have NaN or infinity")
        chosen.append(members[chooser(points, num_per_class)])
    return jnp.concatenate(chosen)
