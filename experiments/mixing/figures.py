"""Figures of `experiments.mixing`."""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from experiments.lab.pictures import COLOURS, SOFT, plt, save


def mixing_curves(
    path: pathlib.Path,
    accuracy: Mapping[str, Mapping[str, Mapping[str, Any]]],
    title: str,
    *,
    soft: Collection[str] = (),
) -> None:
    """Draws accuracy over the number of real images that were added.

    Args:
      path: the PNG to write.
      accuracy: row -> real images per class, a number in words -> `mean` and `interval`,
        drawn as a band.
      title: of the figure.
      soft: rows to compare with, dashed and grey.
    """
    figure, axes = plt.subplots(figsize=(5.2, 3.4))
    colours = iter(COLOURS * len(accuracy))
    patterns = iter(["--", ":", "-."] * len(accuracy))
    markers = iter("osD^vPX" * len(accuracy))
    ticks = sorted({int(added) for row in accuracy.values() for added in row})
    for name, row in accuracy.items():
        x = sorted(map(int, row))
        mean = np.array([row[str(added)]["mean"] for added in x])
        low, high = np.array([row[str(added)]["interval"] for added in x]).T
        grey = name in soft
        colour = SOFT if grey else next(colours)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(
            x,
            mean,
            label=name,
            color=colour,
            ls=next(patterns) if grey else "-",
            marker=None if grey else next(markers),
            ms=4,
            lw=1.5,
            zorder=1 if grey else 2,
        )
    least = next((added for added in ticks if added > 0), 1)
    axes.set_xscale("symlog", linthresh=least, linscale=0.5)
    axes.set_xticks(ticks, [f"+{added}" for added in ticks])
    axes.minorticks_off()
    axes.set_xlim(-0.15 * least, 1.15 * max(ticks[-1], least))
    axes.set_xlabel("real images added to each class")
    axes.set_ylabel("test accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=SOFT, alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_title(title, fontsize=10, loc="left")
    save(figure, path)
