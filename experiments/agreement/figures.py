"""The figure of `experiments.agreement`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from experiments.agreement.record import Matched
from experiments.lab.pictures import ACCENT, COLOURS, INK, SOFT, folded, plt, save

# Row -> pool -> the record and agreements f[m] of the members in its windows.
MatchedRows = Mapping[str, Mapping[str, tuple[Matched, np.ndarray]]]
# Row -> pool -> accuracies f[m] of its members and agreements f[m].
Clouds = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]


def matched_agreements(
    path: pathlib.Path,
    matched: MatchedRows,
    clouds: Clouds,
    accuracies: Mapping[str, np.ndarray],
    names: Mapping[str, str],
    title: str,
) -> None:
    """Draws agreement with pools at equal accuracy, and against accuracy.

    Above, for each row and pool, the distribution of single agreements, their mean at equal
    accuracy and its interval. Below, a panel a row: each member of the pools, and as lines
    the accuracies of the row's networks.

    Args:
      path: the PNG to write.
      matched: without the pools that have no member of a row's accuracy.
      clouds: all rows and pools.
      accuracies: row -> f[s], of its networks.
      names: pool -> its name in the legend.
      title: of the figure.
    """
    rows = list(clouds)
    columns = max(3, min(5, len(rows)))
    blocks = -(-len(rows) // columns)
    figure = plt.figure(
        figsize=(1.0 + 1.75 * columns, 3.0 + 2.1 * blocks), layout="constrained"
    )
    grid = figure.add_gridspec(
        1 + blocks, columns, height_ratios=[2.4, *[1.9] * blocks], hspace=0.08
    )
    colours = dict(zip(names, (COLOURS[1], ACCENT), strict=True))
    axes = figure.add_subplot(grid[0, :])
    for place, row in enumerate(rows):
        for side, pool in zip((-0.17, 0.17), names, strict=True):
            if pool in matched[row]:
                _draw_matched(axes, place + side, *matched[row][pool], colours[pool])
            else:
                _draw_unmatched(axes, place + side, colours[pool])
    _finish_matched(axes, rows, matched, title)
    _add_legend(axes, names, colours)
    _draw_clouds(figure, grid, clouds, accuracies, colours)
    save(figure, path)


def _draw_unmatched(axes: Axes, at: float, colour: str) -> None:
    axes.annotate(
        "no network of\nits accuracy",
        (at, 0.5),
        xycoords=axes.get_xaxis_transform(),
        fontsize=6.5,
        color=colour,
        ha="center",
        va="center",
        rotation=90,
    )


def _draw_matched(
    axes: Axes, at: float, summary: Matched, values: np.ndarray, colour: str
) -> None:
    """Draws a distribution, its mean and its interval."""
    if len(values) > 4 and np.ptp(values) > 0:
        violin: Any = axes.violinplot(values, [at], widths=0.3, showextrema=False)
        for body in violin["bodies"]:
            body.set(facecolor=colour, alpha=0.3, lw=0)
    spots = at + np.random.default_rng(0).uniform(-0.07, 0.07, len(values))
    axes.scatter(spots, values, s=4, color=colour, alpha=0.35, lw=0)
    value = summary["value"]
    low, high = (value if x is None else x for x in summary["interval"])
    axes.errorbar(
        at,
        value,
        [[value - low], [high - value]],
        color=INK,
        marker="o",
        mfc=colour,
        mec=INK,
        ms=5,
        lw=1.4,
        capsize=3,
        zorder=3,
    )


def _finish_matched(
    axes: Axes, rows: Sequence[str], matched: MatchedRows, title: str
) -> None:
    axes.set_xticks(range(len(rows)), map(folded, rows), fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    # A wide interval of few networks leaves the picture; distributions do not.
    if shown := [values for of_row in matched.values() for _, values in of_row.values()]:
        low = min(values.min() for values in shown)
        high = max(values.max() for values in shown)
        room = max(0.5 * (high - low), 0.02)
        least, most = axes.get_ylim()
        axes.set_ylim(max(least, low - room, 0), min(most, high + room, 1))
    axes.set_ylabel("agreement at equal accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=SOFT, alpha=0.25)
    axes.set_title(title, fontsize=10, loc="left")


def _add_legend(axes: Axes, names: Mapping[str, str], colours: Mapping[str, str]) -> None:
    handles = [
        Line2D([], [], ls="", marker="o", ms=5, color=colours[pool], label=name)
        for pool, name in names.items()
    ]
    handles.append(
        Line2D([], [], color=INK, lw=0.8, ls=":", label="networks trained on the set")
    )
    axes.legend(
        handles=handles, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)
    )


def _draw_clouds(
    figure: Figure,
    grid: GridSpec,
    clouds: Clouds,
    accuracies: Mapping[str, np.ndarray],
    colours: Mapping[str, str],
) -> None:
    """Draws a panel a row, the members of all pools in it."""
    # Members far below the networks and the first pool tell nothing of them.
    pool = next(iter(colours))
    least = min(
        min(of_row[pool][0].min(), np.min(accuracies[row])) - 0.03
        for row, of_row in clouds.items()
    )
    first: Axes | None = None
    for i, (row, of_row) in enumerate(clouds.items()):
        block, column = divmod(i, grid.ncols)
        axes = figure.add_subplot(grid[1 + block, column], sharex=first, sharey=first)
        first = first or axes
        for pool in reversed(list(colours)):
            x, y = (values[of_row[pool][0] >= least] for values in of_row[pool])
            size = 9 if len(x) < 1000 else 3
            axes.scatter(x, y, s=size, color=colours[pool], alpha=0.35, lw=0)
        for accuracy in accuracies[row]:
            axes.axvline(accuracy, color=INK, lw=0.7, ls=":", zorder=0)
        axes.set_title(folded(row), fontsize=8, loc="left")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.tick_params(labelsize=7)
        axes.label_outer()
        if column == 0:
            axes.set_ylabel("agreement with one network", fontsize=8)
        axes.set_xlabel("accuracy", fontsize=8)
