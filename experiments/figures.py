"""Pictures: grids of images and curves. The only file that knows matplotlib."""

import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
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
        right.yaxis.set_major_formatter(PercentFormatter(1.0))
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
    both[1].yaxis.set_major_formatter(PercentFormatter(1.0))
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
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_title(title, fontsize=10, loc="left")
    _save(figure, path)


def _set_styles(names: Sequence[str], soft: Collection[str]) -> dict[str, dict[str, Any]]:
    """A line for each set: real ones grey with a pattern of their own, others coloured."""
    colours, patterns = iter(COLOURS * len(names)), iter(["-", "--", ":"] * len(names))
    return {
        name: {"color": "#616e7c", "ls": next(patterns), "lw": 1.3}
        if name in soft
        else {"color": next(colours), "lw": 1.5}
        for name in names
    }


def probe_curves(
    path: pathlib.Path,
    curves: Mapping[str, Mapping[str, Mapping[str, Any]]],
    *,
    soft: Collection[str] = (),
) -> None:
    """A panel for each quantity along training, a line for each set.

    Args:
      path: the PNG to write.
      curves: quantity -> set -> `iterations`, `mean`, `std` over runs or None, and
        `standard_error` of the probes. The band is twice the standard error, or where
        there are several runs their standard deviation.
      soft: sets to compare with, drawn grey.
    """
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(0.6 + 3.3 * columns, 0.5 + 2.5 * rows), squeeze=False
    )
    names = list(dict.fromkeys(name for panel in curves.values() for name in panel))
    styles = _set_styles(names, soft)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for axes, (quantity, panel) in zip(grid.flat, curves.items(), strict=False):
        for name, curve in panel.items():
            x = curve["iterations"]
            mean = np.array(curve["mean"], float)
            band = curve["std"]
            if band is None:
                band = [None if e is None else 2 * e for e in curve["standard_error"]]
            half = np.nan_to_num(np.array(band, float))
            axes.plot(x, mean, label=name, **styles[name])
            colour = styles[name]["color"]
            axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.18, lw=0)
        axes.set_title(
            quantity.replace("_", " ").replace(".", ": "), fontsize=9, loc="left"
        )
        axes.margins(x=0.02)
        if quantity.endswith(("accuracy", "alignment")):
            axes.set_ylim(0, 1.02)
        elif quantity.endswith("condition_number"):
            axes.set_yscale("log")
    for axes in grid[-1]:
        axes.set_xlabel("iteration")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(
        handles,
        labels,
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    _save(figure, path)


def densities(
    path: pathlib.Path,
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    *,
    soft: Collection[str] = (),
) -> None:
    """Spectral densities of the Hessian, a panel for each iteration.

    Args:
      path: the PNG to write.
      panels: title -> set -> (eigenvalues, density).
      soft: sets to compare with, drawn grey.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(0.6 + 3.3 * columns, 0.5 + 2.5 * rows), squeeze=False
    )
    styles = _set_styles(list(next(iter(panels.values()))), soft)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, panel) in zip(grid.flat, panels.items(), strict=False):
        for name, (x, density) in panel.items():
            axes.plot(x, density, label=name, **styles[name])
        top = max(density.max() for _, density in panel.values())
        axes.set_yscale("log")
        axes.set_ylim(1e-6 * top, 3 * top)
        axes.set_title(title, fontsize=9, loc="left")
    for axes in grid[-1]:
        axes.set_xlabel("eigenvalue of the Hessian")
    for axes in grid[:, 0]:
        axes.set_ylabel("density")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(
        handles,
        labels,
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    _save(figure, path)


def mixing_curves(
    path: pathlib.Path,
    accuracy: Mapping[str, Mapping[str, Mapping[str, Any]]],
    title: str,
    *,
    soft: Collection[str] = (),
) -> None:
    """Draws accuracy over the number of real images that were added.

    Args:
      path: the PNG to write.
      accuracy: row -> real images per class, a number in words -> `mean` and `interval`,
        drawn as a band.
      title: of the figure.
      soft: rows to compare with, dashed and grey.
    """
    figure, axes = plt.subplots(figsize=(5.2, 3.4))
    colours = iter(COLOURS * len(accuracy))
    patterns = iter(["--", ":", "-."] * len(accuracy))
    markers = iter("osD^vPX" * len(accuracy))
    ticks = sorted({int(added) for row in accuracy.values() for added in row})
    for name, row in accuracy.items():
        x = sorted(map(int, row))
        mean = np.array([row[str(added)]["mean"] for added in x])
        low, high = np.array([row[str(added)]["interval"] for added in x]).T
        grey = name in soft
        colour = SOFT if grey else next(colours)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(
            x,
            mean,
            label=name,
            color=colour,
            ls=next(patterns) if grey else "-",
            marker=None if grey else next(markers),
            ms=4,
            lw=1.5,
            zorder=1 if grey else 2,
        )
    least = next((added for added in ticks if added > 0), 1)
    axes.set_xscale("symlog", linthresh=least, linscale=0.5)
    axes.set_xticks(ticks, [f"+{added}" for added in ticks])
    axes.minorticks_off()
    axes.set_xlim(-0.15 * least, 1.15 * max(ticks[-1], least))
    axes.set_xlabel("real images added to each class")
    axes.set_ylabel("test accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=SOFT, alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set_title(title, fontsize=10, loc="left")
    _save(figure, path)


def pixel_densities(
    path: pathlib.Path,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    soft: Collection[str] = (),
) -> None:
    """Draws densities of pixel values; 0..1, what an image can show, is shaded.

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
    axes.set_yscale("log")
    axes.set_xlabel("pixel value; an image can show 0 to 1")
    axes.set_ylabel("density")
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, path)


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
    _save(figure, path)


def influenced(
    path: pathlib.Path,
    images: np.ndarray,
    others: np.ndarray,
    names: Sequence[str],
    other_names: Sequence[Sequence[str]],
    title: str,
) -> None:
    """A row for each distilled image: it, then the test images that it influences most.

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
        _show(grid[i, 0], images[i])
        grid[i, 0].set_ylabel(names[i], fontsize=8, rotation=0, ha="right", va="center")
        grid[i, 1].set_visible(False)
        for j in range(columns):
            axes = grid[i, j + 2]
            _show(axes, others[i, j])
            if other_names[i][j] != names[i]:
                axes.set_title(other_names[i][j], fontsize=6, color=ACCENT, pad=1.5)
    figure.subplots_adjust(hspace=0.25, wspace=0.06)
    figure.suptitle(title, fontsize=10, y=0.9 + 0.3 / figure.get_figheight())
    _save(figure, path)


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
    _save(figure, path)


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
    """A row for each distilled image: it, its test images, and attributes in words.

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
        _show(grid[i, 0], images[i])
        grid[i, 0].set_ylabel(names[i], fontsize=8, rotation=0, ha="right", va="center")
        for axes in grid[i, 1:]:
            axes.axis("off")
        for axes, image in zip(grid[i, 2:], others[i], strict=False):
            axes.axis("on")
            _show(axes, image)
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
    _save(figure, path)


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
    """Signed effects of attributes, a row for each image.

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
    _save(figure, path)
