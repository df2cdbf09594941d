"""Submodules that are imported when they are first used (PEP 562)."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any


def submodules(
    package: str, names: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and `__dir__` of a package with these submodules.

    Args:
      package: its `__name__`.
      names: submodules; `package.name` imports the module where it was not yet.
    """

    def get(name: str) -> Any:
        if name in names:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listed() -> list[str]:
        module = importlib.import_module(package)
        return sorted({*vars(module), *names})

    return get, listed
