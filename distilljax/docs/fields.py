"""Describes fields, options and names by what the source says of them (for Griffe).

Fields of a `NamedTuple` or a dataclass become one list, `Attributes`. The text of a field
or of a name of a module is the one of its docstring, else the help and limits of its
`option(...)`, else the comment behind it or above it.
"""

import ast
import re
import textwrap
from typing import Any

import griffe

LIMITS = {"low": "at least {}", "high": "at most {}", "above": "greater than {}"}


def option_text(attr: griffe.Attribute) -> str | None:
    """Returns help and limits of `option(default, help, low=...)`; leaves the default."""
    call = attr.value
    if not isinstance(call, griffe.ExprCall) or str(call.function) != "option":
        return None
    named = {a.name: a.value for a in call.arguments if isinstance(a, griffe.ExprKeyword)}
    given = [a for a in call.arguments if not isinstance(a, griffe.ExprKeyword)]
    default, text = [*given, *(named[n] for n in ("default", "help") if n in named)]
    attr.value = default
    limits = [LIMITS[n].format(named[n]) for n in LIMITS if n in named]
    more = f" ({', '.join(limits)})" if limits else ""
    return ast.literal_eval(str(text)) + more


def comment(attr: griffe.Attribute) -> str | None:
    """Returns the comment behind a field or name, else the one above it."""
    lines = attr.lines_collection[attr.filepath]
    assert attr.lineno is not None
    assert attr.endlineno is not None
    behind = re.search(r"  # (.*)$", lines[attr.endlineno - 1])
    if behind:
        return behind[1]
    first = attr.lineno - 1
    while first and lines[first - 1].lstrip().startswith("# "):
        first -= 1
    above = lines[first : attr.lineno - 1]
    return " ".join(line.lstrip(" #") for line in above) or None


def examples_apart(text: str) -> str:
    """Returns a docstring whose examples are indented: Markdown takes them for code."""
    block = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
    return block.sub(lambda found: textwrap.indent(found[0], "    "), text)


class Fields(griffe.Extension):
    """Lists the fields of each class, and gives names of modules their comments."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Takes default and docstring of an option from its call."""
        if text := option_text(attr):
            attr.docstring = griffe.Docstring(text, parent=attr, lineno=attr.lineno)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Sets the examples of a function apart."""
        if func.docstring:
            func.docstring.value = examples_apart(func.docstring.value)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Adds the section `Attributes`, and hides the fields from the list of members."""
        named_tuple = any(str(base).endswith("NamedTuple") for base in cls.bases)
        for function in cls.functions.values():
            if not function.is_alias and not function.has_docstring:
                function.public = False
        if not (named_tuple or "dataclass" in cls.labels) or cls.docstring is None:
            return
        fields = [a for a in cls.attributes.values() if not a.is_alias and a.annotation]
        lines = []
        for attr in fields:
            text = attr.docstring.value if attr.docstring else comment(attr)
            attr.public = False
            if not attr.name.startswith("_"):
                lines.append(f"  {attr.name}: {text or ''}")
        if lines and not re.search(r"^ *Attributes:$", cls.docstring.value, re.MULTILINE):
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(lines)

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Takes the comment of a name of a module as its docstring."""
        if attr.is_alias or attr.docstring or not attr.parent.is_module:
            return
        if text := comment(attr):
            attr.docstring = griffe.Docstring(text, parent=attr, lineno=attr.lineno)
