"""What type checkers are told of the tables is true, and nothing when a program runs."""

import ast
import pathlib

import pytest

from distilljax.core.parametrisations import PARAMETRISATIONS
from distilljax.methods import METHODS
from distilljax.models import MODELS
from experiments.distill.options import Config
from experiments.lab import choices

CHOICES = {
    "MethodChoice": ("method", METHODS),
    "ModelChoice": ("model", MODELS),
    "ParametrisationChoice": ("parametrisation", PARAMETRISATIONS),
}


def declared():
    """Name of a class -> its fields, as type checkers read them."""
    tree = ast.parse(pathlib.Path(choices.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        node.name: {f.target.id: f for f in node.body if isinstance(f, ast.AnnAssign)}
        for node in block.body
        if isinstance(node, ast.ClassDef)
    }


@pytest.mark.parametrize("name", CHOICES)
def test_declared_fields_are_those_of_the_table(name):
    selector, table = CHOICES[name]
    fields = declared()[name]
    assert fields.keys() <= {selector, *table}
    literal = ast.literal_eval(fields[selector].annotation.slice)
    assert set(literal) == fields.keys() - {selector}
    for key in literal:
        module = ast.unparse(fields[key].annotation).split(".")[-2]
        assert table[key].__name__.endswith(module)
    assert getattr(Config(), selector) == ast.literal_eval(fields[selector].value)
    assert not getattr(choices, name).__dataclass_fields__
