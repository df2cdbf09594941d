"""Figures of `experiments.spectrum`."""

import itertools
import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from experiments.lab.pictures import (
    SOFT,
    legend_beside,
    line_styles,
    logarithmic,
    plt,
    save,
)
from experiments.spectrum.record import Stage


def responses(
    path: pathlib.Path,
    stages: Mapping[str, Stage],
    bands: Sequence[int],
    *,
    soft: Collection[str] = (),
) -> None:
    """Draws the energy of each set over that of all real images, in bands of directions.

    Args:
      path: the PNG to write.
      stages: a panel each.
      bands: see `record.Summary`.
      soft: rows to compare with, grey.
    """
    names = list(dict.fromkeys(name for s in stages.values() for name in s["response"]))
    styles = line_styles(names, soft)
    centres = np.sqrt([(a + 1) * b for a, b in itertools.pairwise(bands)])
    figure, grid = plt.subplots(
        1, len(stages), figsize=(3.6 * len(stages), 3.2), sharey=True, squeeze=False
    )
    for axes, (title, stage) in zip(grid[0], stages.items(), strict=True):
        axes.axhline(1, color=SOFT, lw=0.8)
        strong = float(np.mean(stage["strong"]))
        axes.axvline(strong, color=SOFT, lw=0.8, ls=":")
        for name, of_row in stage["response"].items():
            values = np.array(of_row)
            axes.plot(centres, values.mean(axis=0), label=name, **styles[name])
            low, high = values.min(axis=0), values.max(axis=0)
            axes.fill_between(
                centres, low, high, color=styles[name]["color"], alpha=0.15, lw=0
            )
        logarithmic(axes, "x")
        logarithmic(axes, "y")
        axes.set_title(f"{title} networks; dotted: strong | weak", fontsize=8, loc="left")
        axes.set_xlabel("direction, strongest first")
    grid[0, 0].set_ylabel("energy over that of all real images")
    legend_beside(figure, grid[0, 0])
    save(figure, path)
