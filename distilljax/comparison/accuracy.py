"""Test accuracies of fresh networks, on distilled sets and on real images."""

import functools
from collections.abc import Callable, Mapping
from typing import cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from distilljax import devices
from distilljax.analysis.statistics import Spread, spread
from distilljax.comparison.real import real_labels, repeated
from distilljax.training import evaluation
from distilljax.training.evaluation import EvaluationProtocol, Labels
from distilljax.types import (
    Array,
    Batch,
    DistilledSet,
    Key,
    Model,
    RealSet,
)


def measure_accuracies(
    key: Key,
    seeds: int,
    model: Model,
    train_on: Batch | RealSet,
    test: RealSet,
    protocol: EvaluationProtocol,
    *,
    learning_rate: Array | float = 0.01,
    validation: RealSet | None = None,
    mesh: Mesh | None = None,
) -> Spread:
    """Returns the test accuracy of fresh networks.

    Args:
      key: random key.
      seeds: number of networks.
      model: the network.
      train_on: a real set, or stacked small sets, one for each network.
      test: what to test on.
      protocol: how to train.
      learning_rate: the rate where the protocol leaves it to the set.
      validation: held-out images, where the protocol looks at some.
      mesh: devices that share the networks; None for one.
    """
    rate = jnp.asarray(learning_rate, jnp.float32)
    keys = jax.random.split(key, seeds)
    given = devices.everywhere((keys, train_on, test, rate, validation), mesh)
    return spread(_program(model, protocol, mesh)(*given))


@functools.lru_cache(maxsize=16)
def _program(
    model: Model, protocol: EvaluationProtocol, mesh: Mesh | None
) -> Callable[..., Array]:
    """Returns the program that trains and tests, compiled once for sets of one shape."""

    def fresh_accuracy(
        keys: Key,
        train_on: Batch | RealSet,
        test: RealSet,
        rate: Array,
        validation: RealSet | None,
    ) -> Array:
        return evaluation.fresh_accuracy(
            keys,
            model,
            train_on,
            test,
            protocol,
            learning_rate=rate,
            stacked=isinstance(train_on, Batch),
            validation=validation,
            mesh=mesh,
        )

    return cast(Callable[..., Array], devices.jit(fresh_accuracy, mesh))


def compare_accuracies(
    key: Key,
    seeds: int,
    model: Model,
    distilled: DistilledSet,
    baselines: Mapping[str, Batch],
    test: RealSet,
    protocol: EvaluationProtocol,
    *,
    targets: Array | None = None,
    labels: Labels = "own",
    validation: RealSet | None = None,
    mesh: Mesh | None = None,
) -> dict[str, Spread]:
    """Returns the accuracies of `distilled` and of each baseline, sets of real images.

    Args:
      key: random key.
      seeds: number of networks.
      model: the network.
      distilled: the set, decoded.
      baselines: name -> stacked sets, one for each network, see `random_subsets`; their
        labels are distributions.
      test: what to test on.
      protocol: how to train.
      targets: learned real-valued labels of `distilled`, where it has some.
      labels: of `distilled`: its own, or hard ones.
      validation: held-out images, where the protocol looks at some.
      mesh: devices that share the networks; None for one.
    """
    own = evaluation.as_batch(distilled, protocol, targets=targets, labels=labels)
    sets = {"distilled": repeated(own, seeds)}
    for name, real in baselines.items():
        sets[name] = real._replace(labels=real_labels(real.labels, protocol))
    rate = jnp.exp(distilled.log_lr)
    return {
        name: measure_accuracies(
            key,
            seeds,
            model,
            stack,
            test,
            protocol,
            learning_rate=rate,
            validation=validation,
            mesh=mesh,
        )
        for name, stack in sets.items()
    }


TRAINED_ON = {
    "distilled": "the distilled set",
    "distilled_hard": "the distilled set, hard labels",
    "distilled_plain": "the distilled set, no augmentation",
    "random": "as many random real images",
    "random_expert": "as many random, labels of an expert",
    "random_plain": "as many random, no augmentation",
    "herding": "as many by herding",
    "k_centre": "as many by k-centre",
    "whole": "the whole training set",
}
