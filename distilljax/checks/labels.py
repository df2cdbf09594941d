"""Checks of labels: rows beside logits, class numbers, the order of a distilled set."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from distilljax.checks.arrays import concrete
from distilljax.checks.kinds import real_set
from distilljax.checks.networks import outputs
from distilljax.types import DistilledSet, InputError, RealSet


def label_rows(logits: Any, labels: Any) -> None:
    """Refuses labels that are not one row of probabilities for each row of logits.

    Raises:
      InputError: shapes other than [b, k] and [b, k].
    """
    found = jnp.shape(labels)
    outputs(logits, logits.shape[0] if getattr(logits, "ndim", 0) == 2 else (*found, 1)[0])
    if found != logits.shape:
        raise InputError(
            f"labels {list(found)} beside logits {list(logits.shape)}: expected [b, k] and "
            "[b, k]; turn class numbers into rows with jax.nn.one_hot(labels, k)"
        )


def outputs_of_classes(logits: Any, real: RealSet) -> None:
    """Refuses a network that has other outputs than the real data it is tested on.

    Raises:
      InputError: logits f32[..., k] for another number k of classes.
    """
    found, classes = logits.shape[-1], real.class_sizes.shape[0]
    if found != classes:
        raise InputError(
            f"the network has {found} outputs, the data that it is tested on {classes} "
            "classes; make both for the same classes"
        )


def class_ordered(labels: Any, num_classes: int, what: str = "labels") -> None:
    """Refuses class numbers that are not ordered by class, as many of each.

    Args:
      labels: i[n]; a traced array is not checked.
      num_classes: k.
      what: name of the argument, for the message.

    Raises:
      InputError: labels that are no integers, outside of 0..k-1, not as many of each class,
        or in another order.
    """
    held = concrete(labels)
    if held is None:
        return
    if held.dtype.kind not in "iu":
        raise InputError(
            f"{what} are {held.dtype}; give class numbers 0..{num_classes - 1}"
        )
    wrong = held[(held < 0) | (held >= num_classes)]
    if wrong.size:
        raise InputError(
            f"{what} has {wrong[0]}; with {num_classes} classes give 0..{num_classes - 1}"
        )
    counts = np.bincount(held, minlength=num_classes)
    if len(set(counts.tolist())) > 1:
        few, many = counts.argmin(), counts.argmax()
        raise InputError(
            f"{what}: {counts[few]} of class {few} and {counts[many]} of class {many}; a "
            f"distilled set has as many images of each of its {num_classes} classes: take "
            f"{max(1, counts.min())} of each"
        )
    if (np.diff(held) < 0).any():
        raise InputError(
            f"{what} are not in the order of classes (0, 0, ..., 1, 1, ...); sort images "
            "and labels with order = numpy.argsort(labels, kind='stable')"
        )


def certain_order(distilled: DistilledSet, method: str) -> None:
    """Refuses a distilled set that a method which matches class by class would misread.

    A label that is a distribution passes, whatever its largest entry.

    Args:
      distilled: label_logits f32[n, k]; values are not checked where they are traced.
      method: name of the method, for the message.

    Raises:
      InputError: n is not a multiple of k, or a certain label is of another class than its
        place.
    """
    num, k = distilled.label_logits.shape
    if num % k:
        raise InputError(
            f"{method}: {num} images of {k} classes; give as many of each class, in order"
        )
    logits = concrete(distilled.label_logits)
    if logits is None:
        return
    logits = logits.astype(np.float64)
    others = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1) - 1
    classes, places = logits.argmax(axis=1), np.arange(num) // (num // k)
    wrong = np.flatnonzero((others < 1e-6) & (classes != places))
    if wrong.size:
        at = wrong[0]
        raise InputError(
            f"{method}: image {at} is of class {classes[at]}, in the place of class "
            f"{places[at]}; the method takes {num // k} images of each class, in order: "
            "sort images and labels with order = jnp.argsort(labels, stable=True)"
        )


def learnable_labels(distilled: DistilledSet) -> None:
    """Refuses labels to be learned whose logits have no gradient.

    Raises:
      InputError: all labels are certain to the last bit of a float32.
    """
    logits = concrete(distilled.label_logits)
    if logits is None or logits.ndim != 2 or logits.shape[1] < 2:
        return
    top = np.sort(logits.astype(np.float64), axis=1)[:, -2:]
    if (top[:, 1] - top[:, 0] > 88).all():
        raise InputError(
            "labels are to be learned (label_lr > 0) and are certain: their logits have no "
            "gradient; start them with a confidence below 1, such as 0.9"
        )


def same_classes(distilled: DistilledSet, real: Any) -> None:
    """Refuses real data with another number of classes than the distilled set.

    Raises:
      InputError: the numbers differ, or what is given is no `RealSet`.
    """
    real_set(real)
    ours, theirs = distilled.label_logits.shape[1], real.class_sizes.shape[0]
    if ours != theirs:
        raise InputError(
            f"the distilled set has labels of {ours} classes, the real data {theirs}; make "
            "both of the same data set"
        )
