"""Network parameters as one flat vector, and trajectories of such vectors.

The vector has the order of `jax.flatten_util.ravel_pytree`: the leaves in the order of
their sorted names, each row by row.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.flatten_util import ravel_pytree

from distilljax import exported
from distilljax.types import Array, Model, Params


@exported.named
class Trajectories(NamedTuple):
    """The parameters of expert networks at successive epochs.

    Attributes:
      params: f32, f16 or bf16 [e, t, p]; e experts, t epochs, p parameters.
      first_epoch: i32[], the epoch of params[:, 0]; epoch 0 is the initialisation.
    """

    params: Array
    first_epoch: Array


def flatten(params: Params) -> Array:
    """Returns parameters as one vector, f32[p].

    >>> parameters.flatten({"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}).tolist()
    [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    """
    return ravel_pytree(params)[0]


def num_params(model: Model) -> int:
    """Returns the number of parameters p of a model.

    >>> from distilljax.models import mlp
    >>> parameters.num_params(mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2))
    23
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def unflatten(model: Model) -> Callable[[Array], Params]:
    """Returns the inverse of `flatten` for the parameters of a model: f32[p] -> Params.

    >>> from distilljax.models import mlp
    >>> model = mlp.make(mlp.Config(width=3, depth=1), (2, 2, 1), 2)
    >>> params = parameters.unflatten(model)(jnp.zeros(parameters.num_params(model)))
    >>> model.apply(params, jnp.ones((5, 2, 2, 1))).shape
    (5, 2)
    """
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    ends = [0]
    for leaf in leaves:
        ends.append(ends[-1] + leaf.size)

    def restore(vector: Array) -> Params:
        parts = [
            vector[start:end].reshape(leaf.shape)
            for leaf, start, end in zip(leaves, ends[:-1], ends[1:], strict=True)
        ]
        return jax.tree.unflatten(structure, parts)

    return restore
