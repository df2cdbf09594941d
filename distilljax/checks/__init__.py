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
    positive,
)
from distilljax.checks.kinds import (
    batch,
    call,
    distilled_set,
    fields_of_set,
    instance,
    model,
    one_key,
    path,
    real_set,
    settings,
    several_keys,
)
from distilljax.checks.labels import (
    certain_order,
    class_ordered,
    label_rows,
    learnable_labels,
    outputs_of_classes,
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
    "batch",
    "call",
    "certain_order",
    "class_ordered",
    "concrete",
    "concrete_tree",
    "derivatives",
    "distilled_set",
    "fields_of_set",
    "floating",
    "indices",
    "instance",
    "integer",
    "label_rows",
    "learnable_labels",
    "model",
    "network",
    "one_by_one",
    "one_key",
    "output_axis",
    "outputs",
    "outputs_of_classes",
    "path",
    "plain_updates",
    "positive",
    "real_set",
    "same_classes",
    "settings",
    "several_keys",
]
