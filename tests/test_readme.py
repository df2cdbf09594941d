"""The README keeps its word: example, commands, links."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import distilljax
from tests.conftest import striped_images

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(marker):
    (found,) = re.findall(rf"<!-- {marker} -->\n```\w*\n(.*?)```", README, re.DOTALL)
    return found.strip()


def test_the_example_gives_the_meta_gradient(float64):
    code = block("example")
    assert len([line for line in code.splitlines() if line]) <= 12
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    data = jax.random.normal(jax.random.key(0), (4, 3)), jnp.arange(4.0)
    real = jax.random.normal(jax.random.key(1), (6, 3)), jnp.linspace(-1.0, 1.0, 6)
    grads, eps = names["meta_gradient"](data, real), 1e-6
    for i in range(2):
        direction = jax.random.normal(jax.random.key(2 + i), data[i].shape)

        def moved(sign, i=i, direction=direction):
            point = list(data)
            point[i] = data[i] + sign * eps * direction
            return names["outer_loss"](point, real)

        numeric = (moved(1) - moved(-1)) / (2 * eps)
        np.testing.assert_allclose(jnp.vdot(grads[i], direction), numeric, rtol=1e-6)
        assert abs(numeric) > 1e-3


def test_the_curvature_example_gives_the_dense_figures(float64, capsys):
    names = {}
    exec(compile(block("example: curvature"), "README.md", "exec"), names)
    batch, w = names["batch"], names["params"]["w"]
    dense = jax.hessian(lambda w: names["loss_fn"]({"w": w[:, None]}, batch))(w[:, 0])
    found = names["found"]
    assert abs(found.value - jnp.trace(dense)) < 4 * found.standard_error
    np.testing.assert_allclose(
        names["top"].values, np.linalg.eigvalsh(dense)[[2, 1]], rtol=1e-8
    )
    x = batch[0][:20]
    slope = (1 - jnp.tanh(x @ w) ** 2) * x
    np.testing.assert_allclose(names["kernel"][..., 0, 0], slope @ slope.T, rtol=1e-8)
    assert "trace of the Hessian" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_in_memory_makes_a_set(tmp_path, monkeypatch, capsys):
    """On a few striped images in place of the embedded ones."""
    train, test = striped_images(120), striped_images(20, seed=1)
    data = distilljax.dataset(*train, *test)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(distilljax.data, "load", lambda name: data)
    code = block("example: distil")
    assert len([line for line in code.splitlines() if line]) <= 10
    exec(compile(code.replace("steps=80", "steps=3"), "README.md", "exec"), {})
    assert distilljax.load("distilled.npz").distilled.images.shape == (3, 8, 8, 1)
    printed = capsys.readouterr().out
    assert "3/3  outer loss" in printed
    assert "the whole training set" in printed


@pytest.mark.parametrize("name", ["main", "test"])
def test_each_command_is_one_line(name):
    assert len(block(f"command: {name}").splitlines()) == 1


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob(".github/*.md"),
    *(
        page
        for name in ("distilljax", "experiments", "benchmarks")
        for page in (ROOT / name).rglob("*.md")
    ),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!http)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text())
    for target, anchor in links:
        place = page.parent / target if target else page
        made = "pages" in page.parts and target.startswith("tutorials/")  # by mkdocs
        assert made or place.exists(), target
        assert not anchor or anchor in anchors(place), (target, anchor)


def test_modules_that_are_named_exist():
    for name in (
        *re.findall(r"python -m experiments\.([a-z_]+)", README),
        *re.findall(r"^\| `(\w+)` \| What", README, re.MULTILINE),
    ):
        place = ROOT / "experiments" / name
        assert (place / "__main__.py").exists() or place.with_suffix(".py").exists(), name
