"""The mutation run itself: what it draws, and whether it tells noticed from unnoticed."""

import ast
import pathlib
import subprocess

import pytest

pytest.importorskip("cosmic_ray")

from tests.mutation.copies import ROOT
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.runs import Ended
from tests.mutation.sample import draw, operators, places
from tests.mutation.targets import modules, own_tests

CLAIMS = "experiments/lab/claims.py"
SOURCE = """
def gap(a: int | None, b: "float | None" = None) -> int | None:
    if a < 3 and b is not None:
        return a - 2
    return None
"""


@pytest.mark.slow
def test_a_sample_is_what_the_seed_says():
    first = draw(ROOT, [CLAIMS], 0, 12)
    assert first == draw(ROOT, [CLAIMS], 0, 20)[:12]
    assert first != draw(ROOT, [CLAIMS], 1, 12)
    whole = (ROOT / CLAIMS).read_text()
    for mutant in first:
        ast.parse(mutant.source)
        assert mutant.source != whole
        assert mutant.before != mutant.after
        start, end = mutant.lines
        assert start <= end


def test_places_are_all_but_annotations():
    found = {start for start, _ in places(SOURCE)}
    assert {line for line, _ in found} == {3, 4}
    assert all(
        any(name in operators() for name, _ in held) for held in places(SOURCE).values()
    )


@pytest.mark.slow
def test_every_module_has_tests_and_equivalents_are_of_this_code():
    every = list(modules(ROOT, []))
    with_places = [m for m in every if places((ROOT / m).read_text())]
    assert len(with_places) > 30
    for module in with_places:
        named = [test.partition("::") for test in own_tests(ROOT, module)]
        assert all((ROOT / file).is_file() for file, _, _ in named)
        if module.startswith("distilljax/core/"):
            assert any(file == "tests/test_docs.py" for file, _, _ in named)
    for module, before, after in EQUIVALENT:
        flat = " ".join((ROOT / module).read_text().split())
        assert before in flat
        assert before != after


@pytest.mark.slow
def test_noticed_and_unnoticed(tmp_path, capsys, monkeypatch):
    """Of two modules, one with a test that looks and one with a test that does not."""
    from tests.mutation import __main__ as command

    root = tmp_path / "repository"
    for name, text in {
        "distilljax/good.py": "def twice(x):\n    return x * 2\n",
        "distilljax/bad.py": "def twice(x):\n    return x * 2\n",
        "tests/test_good.py": "from distilljax.good import twice\n\n\n"
        "def test_twice():\n    assert [twice(3), twice(-1)] == [6, -2]\n",
        "tests/test_bad.py": "from distilljax.bad import twice\n\n\n"
        "def test_twice():\n    assert twice(0.5) is not None\n",
        "tests/__init__.py": "",
        "distilljax/__init__.py": "",
        "pytest.ini": "[pytest]\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    before = {p: p.read_bytes() for p in pathlib.Path(root).rglob("*.py")}
    monkeypatch.setattr(command, "ROOT", root)
    monkeypatch.setattr(command, "NEEDED", ())
    monkeypatch.setattr("tests.mutation.copies.ROOT", root)
    monkeypatch.setattr(command.Copies.__init__, "__defaults__", (root,))
    for name, code in (("good", 0), ("bad", 1)):
        assert command.main([f"--modules=distilljax/{name}.py", "--count=2"]) == code
    out = capsys.readouterr().out
    assert "2 noticed  0 unnoticed" in out
    assert "0 noticed  2 unnoticed" in out
    assert before == {p: p.read_bytes() for p in pathlib.Path(root).rglob("*.py")}
    # Those unnoticed once more, of which a better test notices what the module still has.
    printed = tmp_path / "printed.txt"
    gone = "1/9 distilljax/gone.py:1 AddNot: unnoticed\n  - if a:\n  + if not a:\n"
    printed.write_text(out + gone)
    better = (root / "tests/test_good.py").read_text().replace("good", "bad")
    (root / "tests/test_bad.py").write_text(better)
    assert command.main([f"--again={printed}"]) == 0
    again = capsys.readouterr().out
    assert "2 noticed  0 unnoticed" in again
    assert "distilljax/gone.py: gone\n  - if a:\n  + if not a:\n" in again
    # A test that fails in any case notices nothing.
    failing = better.replace("[6, -2]", "[6, -3]")
    (root / "tests/test_bad.py").write_text(failing)
    with pytest.raises(RuntimeError, match=r"test_bad\.py::test_twice failed unch"):
        command.main(["--modules=distilljax/bad.py", "--count=1"])
    assert (root / "distilljax/bad.py").read_bytes() == before[root / "distilljax/bad.py"]


@pytest.mark.parametrize(
    ("line", "blamed"),
    [
        ("FAILED tests/a.py::test_b[x - y] - AssertionError: [", "tests/a.py::test_b"),
        ("FAILED tests/a.py::test_b - AssertionError: [1]", "tests/a.py::test_b"),
        ("ERROR tests/a.py - ImportError", "tests/a.py"),
        ("ERROR absl: no tests/a.py", None),
        ("Segmentation fault", None),
    ],
)
def test_what_failed_is_read_from_what_pytest_prints(line, blamed):
    assert Ended("failed", f"F\n{line}\n1 failed").blamed() == blamed
