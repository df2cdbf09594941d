"""Lazy import of submodules and their objects on first use (PEP 562)."""

import importlib
import types
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


def module(name: str, then: Callable[[Any], object] | None = None) -> Any:
    """Returns a stand-in for a module, which is imported when an attribute is first read.

    Args:
      name: of the module.
      then: called once with the module after its import.
    """
    return _Later(name, then)


class _Later(types.ModuleType):
    def __init__(self, name: str, then: Callable[[Any], object] | None):
        super().__init__(name)
        self._then = then

    def __getattr__(self, name: str) -> Any:
        imported = importlib.import_module(self.__name__)
        then, self._then = self._then, None
        if then is not None:
            then(imported)
        return getattr(imported, name)
