"""Which modules are mutated, and which tests are theirs."""

import functools
import pathlib
from collections.abc import Iterator

FOLDERS = (
    "distilljax/core",
    "distilljax/methods",
    "distilljax/curvature",
    "distilljax/io",
    "distilljax/loop.py",
    "distilljax/data/preprocess.py",
    "experiments/lab/claims.py",
    "experiments/report/verdicts.py",
)
_EXAMPLES = "tests/test_docs.py::test_every_public_function_has_an_example_and_all_run"
_FOREIGN = ("io/test_foreign.py", "io/test_foreign_published.py")
# Tests of a module, or of a folder, beside those in the file of its name.
_TESTS = {
    "distilljax/core/parameters.py": (
        "core/test_parametrisations.py",
        "core/test_inner.py",
    ),
    "distilljax/core/parametrisations": ("core/test_parametrisations.py",),
    "distilljax/core/scan.py": ("core/test_inner.py",),
    "distilljax/io/environment.py": ("experiments/lab/test_records.py",),
    "distilljax/io/records.py": ("experiments/lab/test_kept.py",),
    "distilljax/io/foreign/exports.py": ("io/test_foreign_exports.py", *_FOREIGN),
    "distilljax/io/foreign/pickles.py": ("io/test_foreign_pickles.py", *_FOREIGN),
    "distilljax/io/foreign": (*_FOREIGN, "io/test_foreign_exports.py"),
    "distilljax/methods": ("methods/test_options.py", "methods/test_contract.py"),
    "experiments/report/verdicts.py": (
        "experiments/lab/test_claims.py",
        "experiments/report",
    ),
}


def modules(root: pathlib.Path, among: list[str]) -> Iterator[str]:
    """Yields the modules under `among`, all if empty, as paths relative to the root."""
    for folder in among or FOLDERS:
        path = root / folder
        found = [path] if path.is_file() else sorted(path.rglob("*.py"))
        yield from (p.relative_to(root).as_posix() for p in found if p.stat().st_size)


@functools.cache
def _with_examples() -> frozenset[str]:
    from tests import test_docs  # needs pytest

    return frozenset(test_docs.functions())


def own_tests(root: pathlib.Path, module: str) -> tuple[str, ...]:
    """Returns the tests of a module, those of its name first, then its examples.

    They are what pytest takes: files relative to the root, and one test by its name.

    Raises:
      LookupError: a module without tests.
    """
    path = pathlib.PurePosixPath(module)
    folder = path.parent
    if folder.parts[0] == "distilljax":
        folder = folder.relative_to("distilljax")
    named = next((_TESTS[str(p)] for p in (path, *path.parents) if str(p) in _TESTS), ())
    own = (folder / f"test_{path.stem}.py").as_posix()
    every = [f"tests/{t}" for t in dict.fromkeys([own, *named])]
    found = dict.fromkeys(
        file.relative_to(root).as_posix()
        for place in every
        for file in (sorted((root / place).rglob("test_*.py")) or [root / place])
        if file.is_file()
    )
    if not found:
        raise LookupError(f"{module} has no tests; name them in tests/mutation/targets.py")
    dotted = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    examples = [f"{_EXAMPLES}[{dotted}]"] if dotted in _with_examples() else []
    first, *rest = found
    return (first, *examples, *rest)
