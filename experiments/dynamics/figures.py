"""Figures of `experiments.dynamics`."""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.lab.pictures import legend_beside, line_styles, logarithmic, plt, save


def _grid(num: int) -> tuple[Figure, np.ndarray]:
    """Returns a figure of `num` panels, three in a row."""
    columns = min(3, num)
    rows = -(-num // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(0.6 + 3.3 * columns, 0.5 + 2.5 * rows), squeeze=False
    )
    for axes in grid.flat[num:]:
        axes.set_visible(False)
    return figure, grid


def _label_columns(grid: np.ndarray, label: str) -> None:
    """Labels the horizontal axis of the last visible panel of each column."""
    for column in grid.T:
        [axes for axes in column if axes.get_visible()][-1].set_xlabel(label)


def _title(quantity: str) -> str:
    """Returns `probe: quantity`, or the quantity where it has the probe's name."""
    probe, _, rest = quantity.partition(".")
    return (rest if rest == probe else quantity).replace("_", " ").replace(".", ": ")


def probe_curves(
    path: pathlib.Path,
    curves: Mapping[str, Mapping[str, Mapping[str, Any]]],
    *,
    soft: Collection[str] = (),
) -> None:
    """Draws a panel for each quantity along training, a line for each set.

    Args:
      path: the PNG to write.
      curves: quantity -> set -> `iterations`, `mean`, `std` over runs or None, and
        `standard_error` of the probes. The band is twice the standard error, or where
        there are several runs their standard deviation.
      soft: sets to compare with, drawn grey.
    """
    figure, grid = _grid(len(curves))
    names = list(dict.fromkeys(name for panel in curves.values() for name in panel))
    styles = line_styles(names, soft)
    for axes, (quantity, panel) in zip(grid.flat, curves.items(), strict=False):
        for name, curve in panel.items():
            x = curve["iterations"]
            mean = np.array(curve["mean"], float)
            band = curve["std"]
            if band is None:
                band = [None if e is None else 2 * e for e in curve["standard_error"]]
            half = np.nan_to_num(np.array(band, float))
            axes.plot(x, mean, label=name, **styles[name])
            colour = styles[name]["color"]
            axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.18, lw=0)
        axes.set_title(_title(quantity), fontsize=9, loc="left")
        axes.margins(x=0.02)
        if quantity.endswith(("accuracy", "alignment")):
            axes.set_ylim(0, 1.02)
        elif quantity.endswith("condition_number"):
            logarithmic(axes, "y")
    _label_columns(grid, "iteration")
    one_run = all(
        curve["std"] is None for panel in curves.values() for curve in panel.values()
    )
    band = "2 standard errors of the probe" if one_run else "standard deviation of the runs"
    legend_beside(figure, grid[0][0], f"band: ±{band}")
    save(figure, path)


def densities(
    path: pathlib.Path,
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    *,
    soft: Collection[str] = (),
) -> None:
    """Draws spectral densities of the Hessian, a panel for each iteration.

    Args:
      path: the PNG to write.
      panels: title -> set -> (eigenvalues, density).
      soft: sets to compare with, drawn grey.
    """
    figure, grid = _grid(len(panels))
    styles = line_styles(list(next(iter(panels.values()))), soft)
    for axes, (title, panel) in zip(grid.flat, panels.items(), strict=False):
        for name, (x, density) in panel.items():
            axes.plot(x, density, label=name, **styles[name])
        top = max(density.max() for _, density in panel.values())
        logarithmic(axes, "y")
        axes.set_ylim(1e-6 * top, 3 * top)
        axes.set_title(title, fontsize=9, loc="left")
    _label_columns(grid, "eigenvalue of the Hessian")
    for axes in grid[:, 0]:
        axes.set_ylabel("density")
    legend_beside(figure, grid[0][0])
    save(figure, path)
