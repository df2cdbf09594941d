"""The types shared by all parts of distilljax, without behaviour.

Shapes use n (images), k (classes), b (batch), h, w, c (height, width, channels),
d (features). Images are NHWC.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax

from distilljax import exported

Array = jax.Array
Key = jax.Array  # a typed PRNG key, from jax.random.key
Params = Any  # a pytree of float arrays


class InputError(ValueError):
    """An invalid input; the message says what, why and what to do.

    Command-line programs print it as one line without a traceback.
    """


@exported.named
class Batch(NamedTuple):
    """Images with label distributions."""

    images: Array  # f32[b, h, w, c]
    labels: Array  # f32[b, k]; rows sum to one, one-hot for real data


@exported.named
class DistilledSet(NamedTuple):
    """The learned quantities: images, labels and inner learning rate."""

    images: Array  # f32[n, h, w, c], n = k * ipc, class-ordered, preprocessed
    label_logits: Array  # f32[n, k]; the labels are softmax(label_logits)
    log_lr: Array  # f32[]; log of the inner learning rate, which so stays positive


class Transform(Protocol):
    """A fitted preprocessing, a pytree that can be passed to jitted functions."""

    def __call__(self, images: Array) -> Array:
        """Preprocesses u8[b, h, w, c] in 0..255 to the network input f32[b, h, w, c]."""

    def inverse(self, images: Array) -> Array:
        """Maps network input f32[b, h, w, c] to pixels f32[b, h, w, c], [0, 1] in gamut."""


@exported.named
class RealSet(NamedTuple):
    """A real data set on the device, from which batches are sampled inside jit."""

    images: Array  # u8[n, h, w, c], raw; the transform is applied to each batch
    labels: Array  # i32[n]
    class_index: Array  # i32[k, m]; row j: positions of class j, repeated to fill the row
    class_sizes: Array  # i32[k], images of each class
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
    """

    init: Callable[[Key], Params]
    features: Callable[[Params, Array], Array]  # f32[b, h, w, c] -> f32[b, d]
    apply: Callable[[Params, Array], Array]  # f32[b, h, w, c] -> f32[b, k], logits


# (params, batch) -> f32[], the mean over the examples of the batch, not their sum, and
# nothing beside it. It has a derivative of the mode and order that a function takes of it.
LossFn = Callable[[Params, Batch], Array]


@exported.data
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
    """

    value: Array  # f32[...]
    standard_error: Array  # f32[...], of the mean over probes; nan for a single probe
    num_probes: Array  # i32[]
    of: str  # name of the estimated quantity
