"""Pictures: grids of images and curves. The only file that knows matplotlib."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from distilljax.io.files import replacing

MOST_IMAGES_PER_CLASS = 10
INK, SOFT, ACCENT = "#1f2933", "#9aa5b1", "#c2410c"
COLOURS = [ACCENT, "#1d4ed8", "#15803d", "#7e22ce", "#a16207", INK]

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


def expert_curves(
    path: pathlib.Path, records: Sequence[Mapping[str, Any]], title: str
) -> None:
    """Draws training loss and held-out accuracy of experts over their epochs.

    The mean, one standard deviation about it, and each expert as a thin line.

    Args:
      path: the PNG to write.
      records: one an expert and epoch: `expert`, `epoch`, `accuracy`, and `loss`, which
        is absent or None at epoch 0.
      title: of the figure.
    """
    figure, both = plt.subplots(1, 2, figsize=(6.6, 2.7))
    shown = (("loss", "training loss", INK), ("accuracy", "held-out accuracy", ACCENT))
    num_experts = len({record["expert"] for record in records})
    for axes, (field, label, colour) in zip(both, shown, strict=True):
        known = [record for record in records if record.get(field) is not None]
        epochs = sorted({record["epoch"] for record in known})
        curves = np.full((num_experts, len(epochs)), np.nan)
        rows = {e: i for i, e in enumerate(sorted({r["expert"] for r in records}))}
        for record in known:
            curves[rows[record["expert"]], epochs.index(record["epoch"])] = record[field]
        mean, std = curves.mean(axis=0), curves.std(axis=0, ddof=num_experts > 1)
        axes.plot(epochs, curves.T, color=SOFT, lw=0.5, alpha=0.5)
        axes.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.2, lw=0)
        axes.plot(epochs, mean, color=colour, lw=1.6, marker="o", ms=2.5)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    both[1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    _save(figure, path)


def accuracy_dots(
    path: pathlib.Path,
    accuracy: Mapping[str, Mapping[str, Mapping[str, Any]]],
    title: str,
    *,
    soft: Sequence[str] = (),
    chance: float | None = None,
) -> None:
    """Draws accuracies in groups: mean, standard deviation, and each network as a speck.

    Args:
      path: the PNG to write.
      accuracy: row -> group -> `mean`, `std`, `values`; every row has the same groups.
        A row is one colour, named in the legend; a group is one place on the axis.
      title: of the figure.
      soft: rows to compare with, drawn hollow and grey.
      chance: accuracy of guessing, drawn as a dotted line.
    """
    groups = list(next(iter(accuracy.values())))
    step = min(0.16, 0.72 / len(accuracy))
    figure, axes = plt.subplots(figsize=(1.6 + 1.1 * len(groups), 3.2))
    colours = iter(COLOURS * len(accuracy))
    markers = iter("osD^vP" * len(accuracy))
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
    axes.set_ylabel("test accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_title(title, fontsize=10, loc="left")
    _save(figure, path)


def memory_curves(
    path: pathlib.Path, lines: Mapping[tuple[str, str], Sequence[tuple[int, float]]]
) -> None:
    """Temporary memory against the length of the unroll.

    Args:
      path: of the picture.
      lines: (method, policy) -> (inner steps, MiB) pairs.
    """
    methods = list(dict.fromkeys(method for method, _ in lines))
    figure, rows = plt.subplots(1, len(methods), figsize=(7.2, 3.2), sharey=True)
    for axes, method in zip(np.atleast_1d(rows), methods, strict=True):
        policies = [policy for m, policy in lines if m == method]
        for policy, colour in zip(policies, COLOURS, strict=False):
            x, y = zip(*lines[method, policy], strict=True)
            axes.plot(x, y, "o-", color=colour, markersize=3.5, label=f"remat={policy}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(x, map(str, x))
        axes.minorticks_off()
        axes.set_title(method, loc="left", fontweight="bold")
        axes.set_xlabel("inner steps")
        axes.grid(axis="y", color=SOFT, alpha=0.3)
    np.atleast_1d(rows)[0].set_ylabel("temporary memory, MiB")
    np.atleast_1d(rows)[0].legend(frameon=False)
    _save(figure, path)
