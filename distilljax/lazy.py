"""Lazy import of submodules and their objects on first use (PEP 562)."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any


def submodules(
    package: str,
    names: Sequence[str],
    objects: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and `__dir__` of a package with these submodules.

    Args:
      package: `__name__` of the package.
      names: submodules; accessing `package.name` imports the module.
      objects: name -> submodule that defines it; accessing `package.name` imports the
        submodule and gives its attribute of that name.
    """

    def get(name: str) -> Any:
        if name in names:
            return importlib.import_module(f"{package}.{name}")
        if name in objects:
            module = importlib.import_module(f"{package}.{objects[name]}")
            return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        module = importlib.import_module(package)
        return sorted({*vars(module), *names, *objects})

    return get, listed
