"""Figures of `experiments.connectivity`."""

import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.ticker import PercentFormatter

from experiments.connectivity.record import Line
from experiments.lab.pictures import SOFT, legend_beside, line_styles, plt, save


def error_lines(
    path: pathlib.Path,
    shares: Sequence[float],
    panels: Mapping[str, Mapping[str, Line]],
    *,
    soft: Collection[str] = (),
) -> None:
    """Draws test error along lines: the mean over initialisations, and each one thinly.

    Args:
      path: the PNG to write.
      shares: points of a line.
      panels: title -> row -> its lines.
      soft: rows to compare with, grey.
    """
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    styles = line_styles(names, soft)
    figure, grid = plt.subplots(
        1, len(panels), figsize=(3.4 * len(panels), 3.1), sharey=True, squeeze=False
    )
    for axes, (title, rows) in zip(grid[0], panels.items(), strict=True):
        for name, line in rows.items():
            errors = np.array(line["error"])
            axes.plot(shares, errors.mean(axis=0), label=name, **styles[name])
            for one in errors:
                axes.plot(shares, one, color=styles[name]["color"], lw=0.5, alpha=0.5)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("share of the second network")
        axes.grid(axis="y", color=SOFT, alpha=0.25)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    grid[0, 0].set_ylabel("test error")
    legend_beside(figure, grid[0, 0], "thin: single initialisations")
    save(figure, path)
