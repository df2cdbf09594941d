"""TODO."""

import pathlib
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from experiments.lab.pictures import ACCENT, COLOURS, INK, SOFT, save


def matched_agreements(
    path: pathlib.Path,
    matched: Mapping[str, Mapping[str, tuple[Mapping[str, Any], np.ndarray]]],
    clouds: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
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
      matched: row -> pool -> `value` and `interval` (of None if unknown), and agreements
        f[m]; without the pools that have no member of that accuracy.
      clouds: row -> pool -> accuracies f[m] of its members and agreements f[m].
      accuracies: row -> f[s], of its networks.
      names: pool -> what it is called.
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
            at, colour = place + side, colours[pool]
            if pool not in matched[row]:
                axes.annotate(
                    "no member of\nits accuracy",
                    (at, 0.5),
                    xycoords=axes.get_xaxis_transform(),
                    fontsize=6.5,
                    color=colour,
                    ha="center",
                    va="center",
                    rotation=90,
                )
                continue
            summary, values = matched[row][pool]
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
    axes.set_xticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    # A wide interval of few networks leaves the picture; distributions do not.
    if shown := [one for of_row in matched.values() for one in of_row.values()]:
        low = min(values.min() for _, values in shown)
        high = max(values.max() for _, values in shown)
        room = max(0.5 * (high - low), 0.02)
        seen, most = axes.get_ylim()
        axes.set_ylim(max(seen, low - room), min(most, high + room))
    axes.set_ylabel("agreement at equal accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=SOFT, alpha=0.25)
    axes.set_title(title, fontsize=10, loc="left")
    legend = [
        Line2D([], [], ls="", marker="o", ms=5, color=colours[pool], label=name)
        for pool, name in names.items()
    ]
    legend.append(Line2D([], [], color=INK, lw=0.8, ls=":", label="the row's networks"))
    axes.legend(
        handles=legend, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)
    )
    # What lies far below the networks and the first pool says nothing of them.
    pool = next(iter(names))
    least = min(
        min(clouds[row][pool][0].min(), np.min(accuracies[row])) - 0.03 for row in rows
    )
    first: Axes | None = None
    for i, row in enumerate(rows):
        block, column = divmod(i, columns)
        axes = figure.add_subplot(grid[1 + block, column], sharex=first, sharey=first)
        first = first or axes
        for pool in reversed(list(names)):
            x, y = (values[clouds[row][pool][0] >= least] for values in clouds[row][pool])
            size = 9 if len(x) < 1000 else 3
            axes.scatter(x, y, s=size, color=colours[pool], alpha=0.35, lw=0)
        for accuracy in accuracies[row]:
            axes.axvline(accuracy, color=INK, lw=0.7, ls=":", zorder=0)
        axes.set_title(row, fontsize=8, loc="left")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.tick_params(labelsize=7)
        axes.label_outer()
        if column == 0:
            axes.set_ylabel("agreement with members", fontsize=8)
        axes.set_xlabel("accuracy", fontsize=8)
    save(figure, path)
