"""Figures of `experiments.subsets`."""

import pathlib
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from distilljax.analysis.statistics import SpreadInterval
from experiments.lab.pictures import COLOURS, SOFT, plt, save
from experiments.subsets.record import Comparison


def _line(
    axes: Axes, of_row: Mapping[str, SpreadInterval], label: str, colour: str, style: str
) -> None:
    sizes = sorted(of_row, key=int)
    mean = [of_row[size]["mean"] for size in sizes]
    half = [of_row[size]["interval"][1] - of_row[size]["mean"] for size in sizes]
    at = [int(size) for size in sizes]
    axes.errorbar(at, mean, half, label=label, color=colour, fmt=style, ms=5, capsize=2)


def part_curves(
    path: pathlib.Path,
    accuracy: Mapping[str, Mapping[str, SpreadInterval]],
    comparisons: Sequence[Comparison],
    title: str,
) -> None:
    """Draws a panel for each larger set: its parts, random images, sets distilled small.

    Args:
      path: the PNG to write.
      accuracy: row -> images of each class, in digits.
      comparisons: which rows stand beside one another.
      title: of the figure.
    """
    wholes = list(dict.fromkeys(one["whole"] for one in comparisons))
    columns = min(len(wholes), 4)
    lines = -(-len(wholes) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(2.5 * columns, 2.7 * lines), sharey=True, squeeze=False
    )
    for axes in grid.flat[len(wholes) :]:
        axes.axis("off")
    for axes, whole, colour in zip(grid.flat, wholes, COLOURS * len(wholes), strict=False):
        own = [one for one in comparisons if one["whole"] == whole]
        _line(axes, accuracy[own[0]["random"]], "random real images", "#616e7c", "s--")
        _line(axes, accuracy[whole], "a part of it", colour, "o-")
        for one in own:
            at_size = {one["per_class"]: accuracy[one["distilled"]][one["per_class"]]}
            label = "distilled at that size" if one is own[0] else ""
            _line(axes, at_size, label, "#1f2933", "*")
        axes.set_title(whole, fontsize=8)
        axes.set_xscale("log")
        ticks = sorted(map(int, accuracy[whole]))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.margins(x=0.15)
        axes.grid(axis="y", color=SOFT, alpha=0.25)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axes in grid[-1]:
        axes.set_xlabel("images of each class")
    for row in grid:
        row[0].set_ylabel("test accuracy")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.legend(
        handles,
        labels,
        frameon=False,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
        ncols=3,
    )
    save(figure, path)
