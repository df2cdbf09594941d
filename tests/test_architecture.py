"""Imports run one way, and the core is quick to import."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "distilljax"
BASE = {"types", "config"}
ROOMS = {
    "types": set(),
    "config": {"types"},
    "data": BASE,
    "models": BASE,
    "core": BASE,
    "curvature": BASE,
    "methods": BASE | {"core"},
    "probes": BASE | {"core", "curvature"},
    "io": BASE | {"core", "data", "models", "methods", "curvature", "probes"},
    "loop": BASE | {"core", "data", "models", "methods", "curvature", "probes", "io"},
    "__init__": {"types"},
}
LATE = {"tensorflow_datasets", "orbax", "matplotlib", "rich", "tensorflow", "torch"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(ast.parse(path.read_text())):
        head, *rest = name.split(".")
        assert head not in {"experiments", "benchmarks", "tests"}, name
        if head == "distilljax" and rest:
            assert rest[0] == room or rest[0] in ROOMS[room], f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    top = ast.parse(path.read_text()).body
    for node in top:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imports(ast.Module([node], [])):
                assert name.split(".")[0] not in LATE, f"{path} imports {name}"


def test_only_one_file_rematerialises():
    users = {p.name for p in modules() if "jax.checkpoint" in p.read_text()}
    assert users == {"scan.py"}


def test_the_core_needs_jax_flax_and_optax_alone():
    absent = LATE - {"rich"} | {"experiments"}  # flax itself needs rich
    blocked = ", ".join(repr(name) for name in sorted(absent))
    script = (
        "import sys\n"
        f"for name in ({blocked}): sys.modules[name] = None\n"
        "import distilljax, distilljax.methods, distilljax.models, distilljax.loop\n"
        "import distilljax.curvature.hessian, distilljax.probes\n"
        "import distilljax.data, distilljax.io\n"
        "assert distilljax.__version__\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PACKAGE.parent)
