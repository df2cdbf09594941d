"""Checks of arguments against the contracts of `distilljax.types`.

Shapes and dtypes are checked while a function is traced. Values are checked where they are
known: outside of jit, vmap and grad, or where an argument is a constant.
"""

from distilljax.checks.arrays import (
    at_least_float32,
    concrete,
    concrete_tree,
    derivatives,
    indices,
    integer,
    plain_updates,
)
from distilljax.checks.labels import (
    certain_order,
    class_ordered,
    label_rows,
    learnable_labels,
    same_classes,
)
from distilljax.checks.networks import (
    floating,
    network,
    one_by_one,
    output_axis,
    outputs,
)

__all__ = [
    "at_least_float32",
    "certain_order",
    "class_ordered",
    "concrete",
    "concrete_tree",
    "derivatives",
    "floating",
    "indices",
    "integer",
    "label_rows",
    "learnable_labels",
    "network",
    "one_by_one",
    "output_axis",
    "outputs",
    "plain_updates",
    "same_classes",
]
