"""The types shared by all parts of distilljax, without behaviour.

Shapes use n (images), k (classes), b (batch), h, w, c (height, width, channels),
d (features). Images are NHWC.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Key = jax.Array  # a typed PRNG key, from jax.random.key
Params = Any  # a pytree of float arrays


class InputError(ValueError):
    """An invalid input; the message says what, why and what to do.

    Command-line programs print it as one line without a traceback.

        >>> import distilljax
        >>> try:
        ...     distilljax.load("nothing.npz")
        ... except distilljax.InputError as error:
        ...     print(error)
        nothing.npz: no such file
    """


class Batch(NamedTuple):
    """Images with label distributions.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> import distilljax
        >>> labels = jax.nn.one_hot(jnp.array([0, 2]), 3)
        >>> batch = distilljax.Batch(jnp.zeros((2, 8, 8, 1)), labels)
        >>> batch.labels.shape
        (2, 3)

    Attributes:
      images: f32[b, h, w, c].
      labels: f32[b, k]; rows sum to one, one-hot for real data.
    """

    images: Array
    labels: Array


class DistilledSet(NamedTuple):
    """The learned quantities: images, labels and inner learning rate.

        >>> import jax.numpy as jnp
        >>> from distilljax.core import distilled
        >>> made = distilled.create(
        ...     jnp.zeros((3, 8, 8, 1)), jnp.arange(3), 3, learning_rate=0.5)
        >>> made.label_logits.shape, round(float(jnp.exp(made.log_lr)), 3)
        ((3, 3), 0.5)

    Attributes:
      images: f32[n, h, w, c], n = k * ipc, class-ordered, preprocessed.
      label_logits: f32[n, k]; the labels are softmax(label_logits).
      log_lr: f32[]; log of the inner learning rate, which so stays positive.
    """

    images: Array
    label_logits: Array
    log_lr: Array


class Transform(Protocol):
    """A fitted preprocessing, a pytree that can be passed to jitted functions.

    >>> import numpy as np
    >>> from distilljax import data
    >>> images = np.arange(512, dtype=np.uint8).reshape(8, 8, 8, 1)
    >>> transform = data.fit("normalise", images)
    >>> seen = transform(images)
    >>> bool(np.allclose(transform.inverse(seen), images / 255, atol=1e-6))
    True
    """

    def __call__(self, images: Array) -> Array:
        """Preprocesses u8[b, h, w, c] in 0..255 to the network input f32[b, h, w, c]."""

    def inverse(self, images: Array) -> Array:
        """Maps network input f32[b, h, w, c] to pixels f32[b, h, w, c], [0, 1] in gamut."""


class RealSet(NamedTuple):
    """A real data set on the device, from which batches are sampled inside jit.

        >>> import numpy as np
        >>> from distilljax import data
        >>> split = data.Split(np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 3)
        >>> real = data.on_device(split, data.Identity(), num_classes=3)
        >>> real.class_sizes.tolist()
        [2, 2, 2]

    Attributes:
      images: u8[n, h, w, c], raw; the transform is applied to each batch.
      labels: i32[n].
      class_index: i32[k, m]; row j: positions of class j, repeated to fill the row.
      class_sizes: i32[k], images of each class.
      transform: the fitted preprocessing.
    """

    images: Array
    labels: Array
    class_index: Array
    class_sizes: Array
    transform: Transform


class Model(NamedTuple):
    """A network as pure functions.

    The functions keep no state and draw nothing: what an image gives depends on the
    parameters and on that image alone, whatever else is in the batch. So instance, group
    and layer normalisation fit, BatchNorm in training mode and Dropout do not. Parameters
    are a pytree of float arrays, all of which are learned. A weight is [..., in, out] with
    its outputs on the last axis, as in flax, where output channels are compared
    (`methods.gm` with distance=rows).

    Methods check this when they start, as far as two random images can tell.

        >>> import jax
        >>> import distilljax
        >>> linear = distilljax.Model(
        ...     init=lambda key: {"w": jax.random.normal(key, (64, 3)) / 8},
        ...     features=lambda params, images: images.reshape(len(images), -1),
        ...     apply=lambda params, images: images.reshape(len(images), -1) @ params["w"],
        ... )
        >>> params = linear.init(jax.random.key(0))
        >>> linear.apply(params, jax.numpy.ones((5, 8, 8, 1))).shape
        (5, 3)

    Attributes:
      init: key -> params.
      features: (params, images f32[b, h, w, c]) -> f32[b, d], the input of the last layer;
        read by methods that match features (`dm`).
      apply: (params, images f32[b, h, w, c]) -> f32[b, k], logits.
    """

    init: Callable[[Key], Params]
    features: Callable[[Params, Array], Array]
    apply: Callable[[Params, Array], Array]


# (params, batch) -> f32[], the mean over the examples of the batch, not their sum, and
# nothing beside it. It has a derivative of the mode and order that a function takes of it.
LossFn = Callable[[Params, Batch], Array]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["value", "standard_error", "num_probes"],
    meta_fields=["of"],
)
@dataclasses.dataclass(frozen=True)
class Estimate:
    """An estimate from random probes, with its standard error.

    A pytree that passes through jit, scan and vmap; `of` is static. Standard error and
    number of probes of an exact value are zero.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from distilljax.curvature import estimators
        >>> found = estimators.hutchinson_trace(
        ...     lambda v: 2 * v, jax.random.key(0), jnp.zeros(5), num_probes=10)
        >>> float(found.value), float(found.standard_error), int(found.num_probes)
        (10.0, 0.0, 10)

    Attributes:
      value: f32[...].
      standard_error: f32[...], of the mean over probes; nan for a single probe.
      num_probes: i32[].
      of: name of the estimated quantity.
    """

    value: Array
    standard_error: Array
    num_probes: Array
    of: str
