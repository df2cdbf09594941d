"""Pictures: what the figures of all experiments share."""

import contextlib
import os
import pathlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

# Figures are written to files: a backend of the user's need not be installed.
os.environ["MPLBACKEND"] = "Agg"

import numpy as np

from distilljax import launch, lazy, processes
from distilljax.disk.files import replacing

MOST_IMAGES_PER_CLASS = 10

INK, SOFT, ACCENT = "#1f2933", "#9aa5b1", "#c2410c"

COLOURS = [ACCENT, "#1d4ed8", "#15803d", "#7e22ce", "#a16207", INK]

STYLE = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # names are drawn as they are, dollars and all
}

if TYPE_CHECKING:
    import matplotlib.pyplot as plt
    from matplotlib import ticker
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    # A quarter of what a command imports, for what it draws when it is done.
    plt = lazy.module("matplotlib.pyplot", lambda plt: plt.rcParams.update(STYLE))
    ticker = lazy.module("matplotlib.ticker")


@contextlib.contextmanager
def kept_apart(what: str) -> Iterator[None]:
    """Keeps a failure to draw from what was computed: one line on stderr in its place."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        (first, *_) = str(error).splitlines() or [type(error).__name__]
        text = f"{what} cannot be drawn ({first}); the results are there"
        print(launch.printable(text), file=sys.stderr, flush=True)


def draw_image(axes: "Axes", image: np.ndarray) -> None:
    """Draws an image f32[h, w, c] in 0..1, clipped, without a frame."""
    grey = image.shape[-1] == 1
    axes.imshow(
        np.clip(image[..., 0] if grey else image, 0, 1),
        cmap="gray" if grey else None,
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


@processes.once
def save(figure: "Figure", path: pathlib.Path) -> None:
    """Writes a figure as PNG, atomically, and closes it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def line_styles(names: Sequence[str], soft: Collection[str]) -> dict[str, dict[str, Any]]:
    """Returns a line style for each set: `soft` ones grey, others coloured."""
    colours, patterns = iter(COLOURS * len(names)), iter(["-", "--", ":"] * len(names))
    return {
        name: {"color": "#616e7c", "ls": next(patterns), "lw": 1.3}
        if name in soft
        else {"color": next(colours), "lw": 1.5}
        for name in names
    }


def folded(name: str, width: int = 18) -> str:
    """Returns a name in lines of up to `width` letters, broken after `_`, `-` and spaces.

    A part that is longer has a longer line.
    """
    lines = [""]
    for part in re.split(r"(?<=[ _-])", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def image_grid(
    path: pathlib.Path,
    images: np.ndarray,
    class_names: Sequence[str],
    title: str,
    *,
    start: np.ndarray | None = None,
) -> None:
    """Draws a distilled set.

    One row a class, or, at one image per class, one column a class, with the images
    it started from above where they are given.

    Args:
      path: the PNG to write.
      images: f32[n, h, w, c], displayable: 0..1, clipped. Class-ordered.
      class_names: k names.
      title: of the figure.
      start: as `images`.
    """
    k = len(class_names)
    per_class = len(images) // k
    by_class = images.reshape(k, per_class, *images.shape[1:])
    if per_class == 1:
        rows = [("distilled", by_class[:, 0])]
        if start is not None:
            rows.insert(0, ("start", start))
        columns = min(k, 10)
        blocks = -(-k // columns)
        figure, grid = plt.subplots(
            len(rows) * blocks,
            columns,
            figsize=(0.95 * columns, (0.9 * len(rows) + 0.3) * blocks),
            squeeze=False,
        )
        for axes in grid.flat:
            axes.axis("off")
        for i in range(k):
            block, column = divmod(i, columns)
            for j, (name, row) in enumerate(rows):
                axes = grid[block * len(rows) + j, column]
                axes.axis("on")
                draw_image(axes, row[i])
                if j == 0:
                    axes.set_title(class_names[i], fontsize=8)
                if column == 0:
                    axes.set_ylabel(name, fontsize=8)
        figure.subplots_adjust(hspace=0.1 if blocks == 1 else 0.35, wspace=0.1)
    else:
        columns = min(per_class, MOST_IMAGES_PER_CLASS)
        figure, grid = plt.subplots(
            k, columns, figsize=(0.62 * columns + 1.0, 0.62 * k + 0.3), squeeze=False
        )
        for i, name in enumerate(class_names):
            for j in range(columns):
                draw_image(grid[i, j], by_class[i, j])
            grid[i, 0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
        if columns < per_class:
            title += f" (the first {columns} of {per_class})"
        figure.subplots_adjust(hspace=0.06, wspace=0.06)
    names = 0.22 if per_class == 1 else 0.06  # inches that class names take above
    top = figure.subplotpars.top + names / figure.get_figheight()
    figure.suptitle(title, fontsize=10, y=top, va="bottom")
    save(figure, path)


def accuracy_dots(
    path: pathlib.Path,
    accuracy: Mapping[str, Mapping[str, Mapping[str, Any]]],
    title: str,
    *,
    soft: Sequence[str] = (),
    chance: float | None = None,
    measure: str = "test accuracy",
) -> None:
    """Draws accuracies in groups: mean, standard deviation, and each network as a speck.

    Args:
      path: the PNG to write.
      accuracy: row -> group -> `mean`, `std`, `values`; every row has the same groups.
        A row is one colour, named in the legend; a group is one place on the axis.
      title: of the figure.
      soft: rows to compare with, drawn hollow and grey.
      chance: accuracy of guessing, drawn as a dotted line.
      measure: what the accuracies are called.
    """
    groups = list(next(iter(accuracy.values())))
    step = min(0.16, 0.72 / len(accuracy))
    figure, axes = plt.subplots(figsize=(1.6 + 1.1 * len(groups), 3.2))
    colours = iter(COLOURS * len(accuracy))
    markers = iter("osD^vPX" * len(accuracy))
    for i, (name, row) in enumerate(accuracy.items()):
        colour = SOFT if name in soft else next(colours)
        places = np.arange(len(groups)) + (i - (len(accuracy) - 1) / 2) * step
        axes.errorbar(
            places,
            [row[group]["mean"] for group in groups],
            [row[group]["std"] for group in groups],
            label=name,
            color=colour,
            marker=next(markers),
            mfc="white" if name in soft else colour,
            ms=5,
            lw=1.2,
            capsize=2.5,
            ls="none",
        )
        for place, group in zip(places, groups, strict=True):
            values = row[group]["values"]
            beside = np.full(len(values), place + 0.35 * step)
            axes.scatter(beside, values, s=5, color=colour, alpha=0.6, lw=0)
    if chance is not None:
        axes.axhline(chance, color=SOFT, lw=0.8, ls=":", zorder=0)
        axes.annotate(
            "chance",
            (1, chance),
            xycoords=axes.get_yaxis_transform(),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            fontsize=7,
            color=SOFT,
        )
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(measure)
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_title(title, fontsize=10, loc="left")
    save(figure, path)


def logarithmic(axes: "Axes", which: Literal["x", "y"]) -> None:
    """Makes an axis logarithmic, with plain numbers at its ticks.

    Those of matplotlib are mathematics, which is not parsed here, see `STYLE`.
    """
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(ticker.LogFormatter())
    axis.set_minor_formatter(ticker.LogFormatter(labelOnlyBase=False))


def legend_beside(figure: "Figure", axes: "Axes", note: str = "") -> None:
    """Adds the legend of `axes` on the right of the whole figure, and a note below it."""
    handles, labels = axes.get_legend_handles_labels()
    if note:
        handles.append(plt.Line2D([], [], ls=""))
        labels.append(note)
    figure.tight_layout()
    figure.legend(
        handles,
        labels,
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
