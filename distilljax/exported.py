"""Types that `jax.export` can write: a program with such arguments or results is one file.

    program = jax.export.export(jax.jit(method.step), platforms=("cuda", "tpu"))(*shapes)
    path.write_bytes(program.serialize())

Names are those of module and class; a file written by one version is read by another as
long as they stay.
"""

import json
from typing import TypeVar

import jax.export

Class = TypeVar("Class", bound=type)


def named(cls: Class) -> Class:
    """Registers a named tuple; for use as a decorator."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    jax.export.register_namedtuple_serialization(cls, serialized_name=name)
    return cls


def data(cls: Class) -> Class:
    """Registers a dataclass that is a pytree, whose static fields are texts or numbers."""
    jax.export.register_pytree_node_serialization(
        cls,
        serialized_name=f"{cls.__module__}.{cls.__qualname__}",
        serialize_auxdata=lambda static: json.dumps(static).encode(),
        deserialize_auxdata=lambda text: tuple(json.loads(text)),
    )
    return cls


def optimizer_states() -> None:
    """Registers the states of optax's transformations."""
    import optax

    found = {
        one
        for one in vars(optax).values()
        if isinstance(one, type) and issubclass(one, tuple) and hasattr(one, "_fields")
        if one.__name__.endswith(("State", "MaskedNode"))
    }
    for one in sorted(found, key=lambda one: one.__qualname__):
        named(one)
