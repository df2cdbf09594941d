"""Parameters as one vector: the order of `ravel_pytree`, and back to the bit."""

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from distilljax.core import parameters


def test_there_and_back(problem):
    params = problem.model.init(jax.random.key(3))
    vector = parameters.flatten(params)
    np.testing.assert_array_equal(vector, ravel_pytree(params)[0])
    assert parameters.num_params(problem.model) == vector.size
    assert vector.size == 64 * 12 + 12 + 12 * 3 + 3
    jax.tree.map(
        np.testing.assert_array_equal, parameters.unflatten(problem.model)(vector), params
    )
