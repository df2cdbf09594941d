"""The figure of `experiments.influence`."""

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.lab.pictures import ACCENT, draw_image, plt, save


def influenced(
    path: pathlib.Path,
    images: np.ndarray,
    others: np.ndarray,
    names: Sequence[str],
    other_names: Sequence[Sequence[str]],
    title: str,
) -> None:
    """Draws a row for each distilled image: it, then the test images it influences most.

    Args:
      path: the PNG to write.
      images: f32[r, h, w, c], displayable.
      others: f32[r, m, h, w, c], displayable.
      names: r names of classes, of the distilled images.
      other_names: the same, of the test images; one that differs is written over it.
      title: of the figure.
    """
    rows, columns = others.shape[:2]
    figure, grid = plt.subplots(
        rows,
        columns + 2,
        figsize=(0.72 * (columns + 1) + 1.0, 0.78 * rows + 0.3),
        squeeze=False,
        gridspec_kw={"width_ratios": [1, 0.25, *[1] * columns]},
    )
    for i in range(rows):
        draw_image(grid[i, 0], images[i])
        grid[i, 0].set_ylabel(names[i], fontsize=8, rotation=0, ha="right", va="center")
        grid[i, 1].set_visible(False)
        for j in range(columns):
            axes = grid[i, j + 2]
            draw_image(axes, others[i, j])
            if other_names[i][j] != names[i]:
                axes.set_title(other_names[i][j], fontsize=6, color=ACCENT, pad=1.5)
    figure.subplots_adjust(hspace=0.25, wspace=0.06)
    figure.suptitle(title, fontsize=10, y=0.9 + 0.3 / figure.get_figheight())
    save(figure, path)
