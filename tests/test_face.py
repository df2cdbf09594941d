"""`import distilljax`: the names that a user writes, lazily, as type checkers see them."""

import ast
import pathlib
import subprocess
import sys

import pytest

import distilljax

ROOT = pathlib.Path(distilljax.__file__).parents[1]


def checked_block():
    """Name -> module of the imports under `TYPE_CHECKING` in `distilljax/__init__.py`."""
    tree = ast.parse((ROOT / "distilljax" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_every_name_is_what_the_type_checker_takes_it_for():
    seen = checked_block()
    lazy = {*distilljax._SUBMODULES, *distilljax._OBJECTS}
    assert set(seen) == lazy
    for name, module in distilljax._OBJECTS.items():
        named = sys.modules.get(seen[name]) or __import__(seen[name], fromlist=[name])
        assert getattr(distilljax, name) is getattr(named, name), module
    assert set(distilljax.__all__) == lazy | {
        name for name, value in vars(distilljax.types).items() if name in distilljax.__all__
    }
    assert set(distilljax.__all__) <= set(dir(distilljax))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'distill'"):
        distilljax.distill  # noqa: B018


def test_the_import_brings_jax_and_nothing_else_that_is_heavy():
    """Modules beyond those of jax: those of distilljax that have no code to compile."""
    script = (
        "import sys, jax\n"
        "before = set(sys.modules)\n"
        "import distilljax\n"
        "print(*sorted(set(sys.modules) - before))\n"
        "for name in distilljax.__all__: getattr(distilljax, name)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert set(found.stdout.split()) == {
        "distilljax",
        "distilljax.exported",
        "distilljax.lazy",
        "distilljax.types",
    }
