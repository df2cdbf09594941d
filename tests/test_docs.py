"""Docstrings: an example that runs for each public name, a line for each field."""

import ast
import doctest
import inspect
import pathlib

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
