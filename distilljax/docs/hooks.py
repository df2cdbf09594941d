"""Adds the API reference and the tutorials to the pages (hooks of MkDocs).

Each public module of distilljax has a page, and so has each script in `pages/tutorials`:
text in comments after `# %% [markdown]`, code after `# %%`.
"""

import ast
import pathlib
import re
from typing import Any

from mkdocs.structure.files import File, Files

HERE = pathlib.Path(__file__).parent
PACKAGE = HERE.parent
TUTORIALS = HERE / "pages" / "tutorials"
ORDER = ("arrays", "method", "probe", "meta_gradients", "published_set", "devices")


def modules() -> dict[str, pathlib.Path]:
    """Returns the public modules by name, a package before what it holds."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names = [part for part in parts if part != "__init__"]
        if HERE not in path.parents and not any(n.startswith("_") for n in names):
            found[".".join(names)] = path
    return dict(sorted(found.items()))


def on_config(config: Any) -> Any:
    """Lists the pages: start, tutorials, watching, reference by package."""
    groups: dict[str, list[dict[str, str]]] = {}
    for name in modules():
        short = name.removeprefix("distilljax.")
        groups.setdefault(short.split(".")[0], []).append({short: f"api/{name}.md"})
    config.nav = [
        {"Start": "index.md"},
        {"Tutorials": [f"tutorials/{name}.md" for name in ORDER]},
        {"Watching": "watching.md"},
        {"Reference": [p[0] if len(p) == 1 else {top: p} for top, p in groups.items()]},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds a page for each module and each tutorial."""
    pages = {f"api/{name}.md": reference(name, path) for name, path in modules().items()}
    for name in ORDER:
        pages[f"tutorials/{name}.md"] = tutorial((TUTORIALS / f"{name}.py").read_text())
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def reference(name: str, path: pathlib.Path) -> str:
    """Returns the page of a module; that of a package links to what it holds."""
    if path.name != "__init__.py":
        return f"::: {name}\n"
    tree = ast.parse(path.read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    exported = _exported(tree)
    own = [n for n in exported if n not in imported]
    inside = [m for m in modules() if m.rpartition(".")[0] == name]
    parts = [f"::: {name}\n    options:\n      members: {own or 'false'}"]
    for title, targets in (
        ("Names", [f"{name}.{n}" for n in exported if n in imported]),
        ("Modules", inside),
    ):
        targets = [t for t in targets if title == "Modules" or t not in inside]
        if targets:
            links = [f"- [`{t.removeprefix('distilljax.')}`][{t}]" for t in targets]
            parts += [f"## {title}", "\n".join(links)]
    return "\n\n".join(parts) + "\n"


def _exported(tree: ast.Module) -> list[str]:
    """Returns `__all__` of a module; empty if it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def tutorial(script: str) -> str:
    """Returns a script in percent format as Markdown.

    Args:
      script: its docstring, whose first line is the title; then cells, each a comment
        `# %% [markdown]` with text in comments, or `# %%` with code.
    """
    head, *cells = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)
    title, _, introduction = head.strip().strip('"').partition("\n")
    parts = [f"# {title.rstrip('.')}", introduction.strip()]
    for kind, cell in zip(cells[::2], cells[1::2], strict=True):
        if kind.strip() == "[markdown]":
            lines = cell.strip().splitlines()
            parts.append("\n".join(re.sub("^# ?", "", line) for line in lines))
        else:
            parts.append(f"```python\n{cell.strip()}\n```")
    return "\n\n".join(parts) + "\n"
