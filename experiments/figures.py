"""Pictures: grids of images and curves. The only file that knows matplotlib."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from distilljax.io.files import replacing

MOST_IMAGES_PER_CLASS = 10
INK, SOFT, ACCENT = "#1f2933", "#9aa5b1", "#c2410c"

plt.rcParams.update(
    {
        "figure.dpi": 150,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "text.color": INK,
    }
)


def _show(axes: Axes, image: np.ndarray) -> None:
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


def _save(figure: Any, path: pathlib.Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight", facecolor="white")
    plt.close(figure)


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
                _show(axes, row[i])
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
                _show(grid[i, j], by_class[i, j])
            grid[i, 0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
        if columns < per_class:
            title += f" (the first {columns} of {per_class})"
        figure.subplots_adjust(hspace=0.06, wspace=0.06)
    names = 0.22 if per_class == 1 else 0.06  # inches that class names take above
    top = figure.subplotpars.top + names / figure.get_figheight()
    figure.suptitle(title, fontsize=10, y=top, va="bottom")
    _save(figure, path)


def loss_curve(
    path: pathlib.Path, records: Sequence[Mapping[str, Any]], title: str, best_step: int
) -> None:
    """Draws outer loss and held-out accuracy over the outer steps.

    Args:
      path: the PNG to write.
      records: one a step: `step`, `loss`, and `score` where there is one.
      title: of the figure.
      best_step: the step whose set was kept.
    """
    steps = np.array([record["step"] for record in records])
    loss = np.array([record["loss"] for record in records], float)
    scored = [record for record in records if record.get("score") is not None]
    figure, axes = plt.subplots(figsize=(5.6, 3.0))
    axes.plot(steps, loss, color=SOFT, lw=0.8, alpha=0.7)
    width = max(1, len(loss) // 20)
    if width > 1:
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], smooth, color=INK, lw=1.6)
    axes.set_xlabel("outer step")
    axes.set_ylabel("outer loss")
    if scored:
        right = axes.twinx()
        right.plot(
            [record["step"] for record in scored],
            [record["score"] for record in scored],
            color=ACCENT,
            marker="o",
            ms=3,
            lw=1.4,
        )
        right.axvline(best_step, color=ACCENT, lw=0.8, ls=":")
        right.set_ylabel("held-out accuracy", color=ACCENT)
        right.tick_params(axis="y", colors=ACCENT)
        right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        right.spines["right"].set_visible(True)
        right.spines["right"].set_color(ACCENT)
    axes.set_title(title, fontsize=10)
    _save(figure, path)
