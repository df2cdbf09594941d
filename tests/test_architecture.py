"""Imports run one way, and the core is quick to import."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "distilljax"
BASE = {"types", "config", "checks", "varying", "devices", "exported", "processes"}
ROOMS = {
    "lazy": set(),
    "exported": set(),
    "types": {"exported"},
    "platforms": set(),
    "keys": {"types"},
    "varying": {"types"},
    "devices": {"types", "config", "checks", "processes", "varying"},
    "processes": {"types", "platforms"},
    "terminal": {"config", "processes", "types"},
    "memory": {"types"},
    "disk": {"types", "memory"},
    "config": {"types"},
    "checks": {"types", "platforms"},
    "flags": BASE,
    "commands": {"flags"},
    "__main__": {"commands"},
    "launch": BASE | {"flags", "disk", "platforms", "terminal"},
    "data": BASE | {"disk", "memory"},
    "models": BASE | {"platforms"},
    "core": BASE | {"lazy", "platforms"},
    "training": BASE | {"lazy", "platforms", "core"},
    "analysis": BASE | {"lazy", "core", "training"},
    "comparison": BASE | {"lazy", "memory", "keys", "core", "data", "training", "analysis"},
    "curvature": BASE | {"lazy", "platforms"},
    "methods": BASE | {"platforms", "core", "curvature"},
    "probes": BASE | {"core", "curvature"},
    "io": BASE
    | {
        "pictures",
        "platforms",
        "disk",
        "memory",
        "core",
        "data",
        "models",
        "methods",
        "curvature",
        "probes",
        "training",
    },
    "loop": BASE
    | {"platforms", "core", "data", "models", "methods", "curvature", "probes", "io"},
    "pictures": {"types"},
    "watching": {"types", "disk", "loop", "pictures"},
    "distillation": BASE
    | {
        "disk",
        "memory",
        "pictures",
        "watching",
        "lazy",
        "keys",
        "core",
        "data",
        "models",
        "methods",
        "training",
        "analysis",
        "comparison",
        "io",
        "loop",
        "__version__",
    },
    # Its submodules for type checkers; at run time they are imported when they are used.
    "__init__": None,
}
LATE = {"tensorflow_datasets", "orbax", "matplotlib", "rich", "tensorflow", "torch"}


def modules():
    return sorted(set(PACKAGE.rglob("*.py")) - set(PACKAGE.glob("docs/**/*.py")))


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
            allowed = ROOMS[room]
            assert allowed is None or rest[0] == room or rest[0] in allowed, (
                f"{path} imports {name}"
            )


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


EXPERIMENTS = PACKAGE.parent / "experiments"


def rooms():
    """Folder or file of `experiments` -> its Python files."""
    found = {}
    for path in sorted(EXPERIMENTS.rglob("*.py")):
        room = path.relative_to(EXPERIMENTS).parts[0].removesuffix(".py")
        found.setdefault(room, []).append(path)
    return found


@pytest.mark.parametrize("room", rooms())
def test_experiments_import_the_laboratory_and_never_each_other(room):
    for path in rooms()[room]:
        for name in imports(ast.parse(path.read_text())):
            head, *rest = name.split(".")
            assert head not in {"benchmarks", "tests"}, f"{path} imports {name}"
            if head != "experiments":
                continue
            # The table, `experiments.EXPERIMENTS`, names questions and imports none.
            assert not rest or rest[0] in {room, "lab", "EXPERIMENTS"}, (
                f"{path} imports {name}"
            )


def test_a_name_in_experiments_is_a_command():
    commands = {room for room in rooms() if room not in ("__init__", "lab")}
    folders = {path.name for path in EXPERIMENTS.iterdir() if path.is_dir()}
    assert folders - commands - {"__pycache__"} == {"lab", "artefacts", "results"}
    for room in commands:
        place = EXPERIMENTS / room
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()


def test_benchmarks_import_the_library_alone():
    for path in sorted((PACKAGE.parent / "benchmarks").rglob("*.py")):
        for name in imports(ast.parse(path.read_text())):
            assert name.split(".")[0] not in {"experiments", "tests"}, f"{path}: {name}"


def test_submodules_are_there_without_importing_them():
    script = (
        "import sys, distilljax\n"
        "assert not {'optax', 'flax', 'scipy', 'absl'} & set(sys.modules)\n"
        "distilljax.methods.bptt, distilljax.core.inner, distilljax.analysis.pools\n"
        "distilljax.training.expert, distilljax.launch.main, distilljax.io.environment\n"
        "assert set(distilljax.__all__) <= set(dir(distilljax))\n"
        "assert 'inner' in dir(distilljax.core)\n"
        "try: distilljax.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PACKAGE.parent)


def test_every_picture_has_the_style_of_the_laboratory():
    """`pictures.plt` sets it at the import; pyplot of one's own may be used before."""
    place = PACKAGE.parent / "experiments"
    importing = [
        str(path.relative_to(place))
        for path in place.rglob("*.py")
        if "import matplotlib.pyplot" in path.read_text(encoding="utf-8")
    ]
    assert importing == ["lab/pictures.py"]
