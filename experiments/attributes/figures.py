"""Figures of `experiments.attributes`."""

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.lab.pictures import ACCENT, INK, draw_image, plt, save


def attributed(
    path: pathlib.Path,
    images: np.ndarray,
    others: Sequence[np.ndarray],
    names: Sequence[str],
    findings: Sequence[Sequence[tuple[str, bool]]],
    title: str,
    *,
    header: str,
) -> None:
    """Draws a row for each distilled image: it, its test images, attributes in words.

    Args:
      path: the PNG to write.
      images: f32[r, h, w, c], displayable.
      others: r arrays f32[m, h, w, c], displayable; m may differ, and be 0.
      names: r names of classes.
      findings: r times (text, whether it is significant); the significant ones stand out.
      title: of the figure.
      header: above the words.
    """
    rows, columns = len(images), max(1, *(len(row) for row in others))
    height = 0.78 * rows + 0.3
    figure, grid = plt.subplots(
        rows,
        columns + 3,
        figsize=(0.72 * (columns + 1) + 5.6, height),
        squeeze=False,
        gridspec_kw={"width_ratios": [1, 0.25, *[1] * columns, 5.6]},
    )
    for i in range(rows):
        draw_image(grid[i, 0], images[i])
        grid[i, 0].set_ylabel(names[i], fontsize=8, rotation=0, ha="right", va="center")
        for axes in grid[i, 1:]:
            axes.axis("off")
        for axes, image in zip(grid[i, 2:], others[i], strict=False):
            axes.axis("on")
            draw_image(axes, image)
        for j, (text, significant) in enumerate(findings[i]):
            grid[i, -1].text(
                0.02,
                0.5 + 0.3 * ((len(findings[i]) - 1) / 2 - j),
                text,
                fontsize=8,
                color=ACCENT if significant else "#616e7c",
                fontweight="bold" if significant else "normal",
                va="center",
                transform=grid[i, -1].transAxes,
            )
    grid[0, -1].set_title(header, fontsize=8, loc="left", x=0.02, pad=6)
    figure.subplots_adjust(hspace=0.12, wspace=0.06)
    top = figure.subplotpars.top + 0.32 / height
    figure.suptitle(title, fontsize=10, x=0.125, ha="left", y=top, va="bottom")
    save(figure, path)


def effect_map(
    path: pathlib.Path,
    effects: np.ndarray,
    marks: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    *,
    marked: tuple[str, str],
    unknown: str,
) -> None:
    """Draws signed effects of attributes, a row for each image.

    Args:
      path: the PNG to write.
      effects: f[n, a] in -1..1; what is not known is nan and grey.
      marks: i[n, a]; 1 is marked hollow, 2 filled.
      rows: n names; a run of equal ones is named once.
      columns: a names.
      title: of the figure.
      marked: what marks 1 and 2 mean.
      unknown: what grey means.
    """
    n, a = effects.shape
    high = 0.26 if n <= 20 else 0.13
    figure, axes = plt.subplots(figsize=(1.8 + 0.26 * a, 1.9 + high * n))
    axes.set_facecolor("#e4e7eb")
    drawn = axes.pcolormesh(effects, cmap="RdBu_r", vmin=-1, vmax=1, ec="white", lw=0.5)
    size = 18 if n <= 20 else 7
    for mark, face in ((1, "none"), (2, INK)):
        y, x = np.nonzero(marks == mark)
        axes.scatter(
            x + 0.5, y + 0.5, s=size, fc=face, ec=INK, lw=0.8, label=marked[mark - 1]
        )
    if np.isnan(effects).any():
        axes.bar(0, 0, fc="#e4e7eb", label=unknown)
    starts = [i for i in range(n) if i == 0 or rows[i] != rows[i - 1]]
    ends = [*starts[1:], n]
    middles = [(first + last) / 2 for first, last in zip(starts, ends, strict=True)]
    axes.set_yticks(middles, [rows[i] for i in starts], fontsize=8)
    if n > len(starts):
        for first in starts[1:]:
            axes.axhline(first, color=INK, lw=0.6)
    axes.set_xticks(np.arange(a) + 0.5, columns, fontsize=8, rotation=45, ha="right")
    axes.tick_params(length=0)
    axes.set_xlim(0, a)
    axes.set_ylim(n, 0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.colorbar(drawn, ax=axes, label="effect", shrink=0.8, pad=0.015)
    axes.set_title(title, fontsize=10, loc="left", pad=22)
    axes.legend(
        frameon=False,
        fontsize=8,
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        borderaxespad=0.2,
        handletextpad=0.2,
    )
    save(figure, path)
