"""Figures of `experiments.recognition`."""

import pathlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D

from experiments.lab.pictures import COLOURS, INK, SOFT, logarithmic, plt, save


def pixel_densities(
    path: pathlib.Path,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    soft: Collection[str] = (),
) -> None:
    """Draws densities of pixel values; the range of images, 0..1, is shaded.

    Args:
      path: the PNG to write.
      curves: set -> edges of the bins f[b + 1] and density f[b].
      soft: sets to compare with, filled and grey.
    """
    figure, axes = plt.subplots(figsize=(6.2, 3.2))
    axes.axvspan(0, 1, color=SOFT, alpha=0.12, lw=0)
    for edge in (0, 1):
        axes.axvline(edge, color=SOFT, lw=0.6)
    styles = iter([(ls, c) for ls in ("-", "--", ":") for c in COLOURS] * len(curves))
    for name, (edges, density) in curves.items():
        shown = np.where(density > 0, density, np.nan)
        if name in soft:
            least = min(d[d > 0].min() for _, d in curves.values())
            axes.stairs(
                density,
                edges,
                baseline=least / 2,
                fill=True,
                color=SOFT,
                alpha=0.45,
                label=name,
                zorder=1,
            )
        else:
            pattern, colour = next(styles)
            axes.stairs(
                shown, edges, baseline=None, color=colour, ls=pattern, lw=1.3, label=name
            )
    logarithmic(axes, "y")
    axes.set_xlabel("pixel value; an image can show 0 to 1")
    axes.set_ylabel("density")
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(figure, path)


def feature_maps(
    path: pathlib.Path,
    maps: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    class_names: Sequence[str],
    title: str,
    *,
    background: str,
) -> None:
    """Draws points in two dimensions, a panel for each map and set.

    Args:
      path: the PNG to write.
      maps: name -> set -> points f[n, 2] and classes i[n]; the same sets in each. A map
        is a row of panels, or more from five sets on.
      class_names: k names; a class is a colour.
      title: of the figure.
      background: the set that is drawn small and pale behind each of the others.
    """
    k = len(class_names)
    palette = plt.get_cmap("tab10" if k <= 10 else "hsv")
    colours = np.array([palette(j if k <= 10 else j / k) for j in range(k)])
    sets = [name for name in next(iter(maps.values())) if name != background]
    columns = min(len(sets), 4)
    blocks = -(-len(sets) // columns)
    figure, grid = plt.subplots(
        len(maps) * blocks,
        columns,
        figsize=(max(4.0, 2.5 * columns), 0.4 + 2.6 * len(maps) * blocks),
        squeeze=False,
    )
    for axes in grid.flat:
        axes.axis("off")
    for i, (name, panel) in enumerate(maps.items()):
        for j, one in enumerate(sets):
            axes = grid[i * blocks + j // columns, j % columns]
            axes.axis("on")
            points, classes = panel[background]
            axes.scatter(*points.T, s=4, c=colours[classes], alpha=0.3, lw=0)
            points, classes = panel[one]
            axes.scatter(*points.T, s=26, c=colours[classes], edgecolors=INK, lw=0.7)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(one, fontsize=8)
            if j % columns == 0:
                axes.set_ylabel(name, fontsize=8)
    legend = [
        Line2D([], [], ls="", marker="o", ms=5, color=colour, label=name)
        for name, colour in zip(class_names, colours, strict=True)
        if k <= 20
    ]
    legend += [
        Line2D([], [], ls="", marker="o", ms=2, color=SOFT, label=background),
        Line2D([], [], ls="", marker="o", ms=5, mfc="white", mec=INK, label="the set"),
    ]
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    figure.tight_layout()
    figure.legend(
        handles=legend,
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    save(figure, path)
