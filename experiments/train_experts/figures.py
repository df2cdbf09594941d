"""Figures of `experiments.train_experts`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.lab.pictures import ACCENT, INK, SOFT, plt, save, ticker


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
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    both[1].yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    save(figure, path)
