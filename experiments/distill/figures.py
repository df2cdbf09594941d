"""Figures of `experiments.distill`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.lab.pictures import ACCENT, INK, SOFT, plt, save, ticker


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
        right.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
        right.spines["right"].set_visible(True)
        right.spines["right"].set_color(ACCENT)
    axes.set_title(title, fontsize=10)
    save(figure, path)
