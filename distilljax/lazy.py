"""Lazy import of submodules on first use (PEP 562)."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any


def submodules(
    package: str, names: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and `__dir__` of a package with these submodules.

    Args:
      package: `__name__` of the package.
      names: submodules; accessing `package.name` imports the module.
    """

    def get(name: str) -> Any:
        if name in names:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        module = importlib.import_module(package)
        return sorted({*vars(module), *names})

    return get, listed
