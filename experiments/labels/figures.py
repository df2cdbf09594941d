"""Figures of `experiments.labels`."""

import pathlib
from collections.abc import Collection, Mapping

from matplotlib.ticker import PercentFormatter

from distilljax.analysis.statistics import SpreadInterval
from experiments.lab.pictures import COLOURS, SOFT, plt, save


def label_lines(
    path: pathlib.Path,
    accuracy: Mapping[str, Mapping[str, SpreadInterval]],
    names: Mapping[str, str],
    title: str,
    *,
    soft: Collection[str] = (),
) -> None:
    """Draws a line for each set, over its labels, with 95 % intervals.

    Args:
      path: the PNG to write.
      accuracy: row -> labels.
      names: labels -> what they are called on the axis, in order.
      title: of the figure.
      soft: rows to compare with, dashed and grey.
    """
    figure, axes = plt.subplots(figsize=(4.6, 3.4))
    colours, patterns = iter(COLOURS * len(accuracy)), iter(["--", ":"] * len(accuracy))
    markers = iter("osD^vPX" * len(accuracy))
    for number, (row, of_row) in enumerate(accuracy.items()):
        at = [place + 0.03 * (number - len(accuracy) / 2) for place in range(len(names))]
        mean = [of_row[one]["mean"] for one in names]
        half = [of_row[one]["interval"][1] - of_row[one]["mean"] for one in names]
        grey = row in soft
        axes.errorbar(
            at,
            mean,
            half,
            label=row,
            color="#616e7c" if grey else next(colours),
            ls=next(patterns) if grey else "-",
            marker=next(markers),
            ms=4,
            lw=1.4,
            elinewidth=0.9,
            capsize=2,
        )
    axes.set_xticks(range(len(names)), [*names.values()])
    axes.set_xlabel("labels")
    axes.set_ylabel("test accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=SOFT, alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_title(title, fontsize=10, loc="left")
    save(figure, path)
