"""Docstrings: an example that runs for each public name and function, a line a field."""

import ast
import doctest
import importlib
import inspect
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import distilljax

PACKAGE = pathlib.Path(distilljax.__file__).parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Examples that others go on from, in this order; the rest in any.
FIRST = ("distil", "save")
# Type aliases and tables have no docstring.
PLAIN = {"Array", "Key", "Params", "LossFn", "METHODS", "MODELS", "PROTOCOLS"}


def public():
    """Name -> object of the face, but submodules and `PLAIN`."""
    names = [n for n in distilljax.__all__ if n not in distilljax._SUBMODULES]
    names = [*FIRST, *(n for n in names if n not in FIRST)]
    return {n: getattr(distilljax, n) for n in names if n not in PLAIN}


def test_every_public_name_has_an_example_and_all_of_them_run(tmp_path, monkeypatch):
    """In one namespace, so that what is compiled once serves several examples."""
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    parser = doctest.DocTestParser()
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    reports = []
    for name, value in public().items():
        test = parser.get_doctest(inspect.getdoc(value), namespace, name, name, 0)
        assert test.examples, f"{name} has no example"
        runner.run(test, out=reports.append, clear_globs=False)
        if name in FIRST:
            namespace.update(test.globs)
    assert runner.failures == 0, "".join(reports)


# Rooms whose public functions all have an example.
ROOMS = ["core", "curvature", "data", "io", "loop", "methods", "pictures", "training"]
ROOMS += ["watching"]


def functions():
    """Module -> its public functions, of the rooms; those without any left out."""
    found = {}
    for room in ROOMS:
        for path in sorted([*PACKAGE.glob(f"{room}.py"), *PACKAGE.glob(f"{room}/**/*.py")]):
            names = path.relative_to(PACKAGE.parent).with_suffix("").parts
            module = ".".join(name for name in names if name != "__init__")
            if here := defined(path.read_text()):
                found[module] = here
    return found


def defined(source):
    """Public functions that a module defines, in its order."""
    top = ast.parse(source).body
    named = [node.name for node in top if isinstance(node, ast.FunctionDef)]
    return [name for name in dict.fromkeys(named) if not name.startswith("_")]


def without_example(module, names):
    """The functions of a module that have no example in their docstring."""
    docs = {name: inspect.getdoc(getattr(module, name)) or "" for name in names}
    return [name for name, text in docs.items() if ">>>" not in text]


def test_a_function_without_an_example_is_found(tmp_path, monkeypatch):
    text = '''
def old():
    """Returns three.

    >>> fresh.old()
    3
    """
    return 3


def new():
    """Returns four."""


def _private(): ...
'''
    (tmp_path / "fresh.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    fresh = importlib.import_module("fresh")
    assert without_example(fresh, defined(text)) == ["new"]


@pytest.mark.parametrize(("name", "public"), functions().items(), ids=functions())
def test_every_public_function_has_an_example_and_all_run(
    name, public, tmp_path, monkeypatch
):
    """Examples know `jax`, `jnp`, `np`, their module, and what those before them made."""
    module = importlib.import_module(name)
    assert not without_example(module, public)
    monkeypatch.chdir(tmp_path)
    namespace = {"jax": jax, "jnp": jnp, "np": np, name.rpartition(".")[2]: module}
    parser = doctest.DocTestParser()
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    reports: list[str] = []
    for function in public:
        found = getattr(module, function)
        if getattr(distilljax, function, None) is found:
            continue  # run above, with the others of the face
        text = inspect.getdoc(found)
        test = parser.get_doctest(text, namespace, function, function, 0)
        runner.run(test, out=reports.append, clear_globs=False)
        namespace.update(test.globs)
    assert runner.failures == 0, "".join(reports)


def tuples():
    """Public NamedTuples of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ClassDef)
                and not node.name.startswith("_")
                and any(
                    isinstance(b, ast.Name) and b.id == "NamedTuple" for b in node.bases
                )
            ):
                yield f"{path.relative_to(PACKAGE)}:{node.name}", node


FIELDS = list(tuples())


@pytest.mark.parametrize(("name", "node"), FIELDS, ids=[name for name, _ in FIELDS])
def test_every_field_is_described(name, node):
    text = ast.get_docstring(node).partition("Attributes:\n")[2]
    described = [
        line.strip().partition(":")[0]
        for line in text.splitlines()
        if line.startswith("  ") and not line.startswith("   ")
    ]
    fields = [f.target.id for f in node.body if isinstance(f, ast.AnnAssign)]
    assert described == fields
