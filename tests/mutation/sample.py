"""Draws mutants: random places of the code, and for each one operator of cosmic-ray."""

import ast
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

Position = tuple[int, int]  # line from 1, column from 0

# Replacements within a family; those between are errors of type that any test notices.
_FAMILIES = (
    {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"},
    {"BitOr", "BitAnd", "BitXor"},
    {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"},
    {"Is", "IsNot"},
    {"UAdd", "USub"},
    {"Delete", "USub"},
    {"Delete", "Not"},
    {"Delete", "Invert"},
)


class Mutant(NamedTuple):
    """One change to one module."""

    module: str
    operator: str  # of cosmic-ray
    occurrence: int  # in the module, of this operator
    lines: tuple[int, int]  # first and last of the statement
    before: str  # the changed lines
    after: str
    source: str  # of the whole module, changed


def operators() -> list[str]:
    """Returns the names of the operators that are used."""
    from cosmic_ray import plugins

    return [n for n in plugins.operator_names() if _used(n)]


def _used(name: str) -> bool:
    from cosmic_ray import plugins

    if plugins.get_operator(name).arguments():
        return False
    _, *changed = name.split("_")
    return len(changed) != 2 or any(set(changed) <= family for family in _FAMILIES)


def _left_out(source: str) -> list[tuple[Position, Position]]:
    """Returns the spans of annotations, which change nothing that runs."""
    nodes: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.AnnAssign, ast.arg)):
            nodes.append(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            nodes.append(node.returns)
    return [
        ((n.lineno, n.col_offset), (n.end_lineno or 0, n.end_col_offset or 0))
        for n in nodes
        if n is not None
    ]


def _statement(tree: ast.Module, line: int) -> tuple[int, int]:
    """Returns the first and last line of a statement, of a block those of its head."""
    found = (line, line)
    for node in ast.walk(tree):  # outer ones come first
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            if line <= last:
                found = node.lineno, last
    return found


def places(source: str) -> dict[tuple[Position, Position], list[tuple[str, int]]]:
    """Returns the places that can be changed: span -> operators with their occurrence."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    left_out = _left_out(source)
    nodes = list(ast_nodes(get_ast(source)))
    found: dict[tuple[Position, Position], list[tuple[str, int]]] = {}
    for name in operators():
        operator = plugins.get_operator(name)()
        spans = [span for node in nodes for span in operator.mutation_positions(node)]
        for occurrence, (start, end) in enumerate(spans):
            if not any(a <= start and end <= b for a, b in left_out):
                found.setdefault((start, end), []).append((name, occurrence))
    return dict(sorted(found.items()))


def _mutant(
    module: str, source: str, name: str, occurrence: int, line: int
) -> Mutant | None:
    """Returns a mutant; None if its source is no Python, such as `-` for a lone `*`."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    changed = mutate_code(source, plugins.get_operator(name)(), occurrence)
    try:
        ast.parse(changed)
    except SyntaxError:
        return None
    before, after = source.splitlines(), changed.splitlines()
    same = (a == b for a, b in zip(before, after, strict=False))
    first = next(i for i, equal in enumerate(same) if not equal)
    tail = 0
    while before[-1 - tail] == after[-1 - tail]:
        tail += 1
    span = _statement(ast.parse(source), line)
    cut = [
        " ".join(" ".join(lines[first : len(lines) - tail]).split())
        for lines in (before, after)
    ]
    return Mutant(module, name, occurrence, span, cut[0], cut[1], changed)


def draw(
    root: pathlib.Path, modules: Iterable[str], seed: int, count: int
) -> Sequence[Mutant]:
    """Returns `count` mutants: places drawn without return, so that the first are a sample.

    A place has the same chance whatever the number of operators for it.
    """
    rng = np.random.default_rng(seed)
    sources = {module: (root / module).read_text() for module in modules}
    every = [
        (module, start, choices)
        for module, source in sources.items()
        for (start, _), choices in places(source).items()
    ]
    drawn: list[Mutant] = []
    for i in map(int, rng.permutation(len(every))):
        if len(drawn) == count:
            break
        module, (line, _), choices = every[i]
        name, occurrence = choices[int(rng.integers(len(choices)))]
        if mutant := _mutant(module, sources[module], name, occurrence, line):
            drawn.append(mutant)
    return drawn


def find(root: pathlib.Path, module: str, before: str, after: str) -> list[Mutant]:
    """Returns the mutants with these changed lines, none if the module has them no more."""
    source = (root / module).read_text()
    lines = source.splitlines()
    return [
        mutant
        for (start, _), choices in places(source).items()
        if " ".join(lines[start[0] - 1].split()) in before
        for name, occurrence in choices
        if (mutant := _mutant(module, source, name, occurrence, start[0]))
        and (mutant.before, mutant.after) == (before, after)
    ]
