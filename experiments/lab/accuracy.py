"""Test accuracies as experiments print them."""

from collections.abc import Mapping

from distilljax.analysis.statistics import Spread
from distilljax.comparison.accuracy import TRAINED_ON
from experiments.lab.terminal import new_table, show_table


def print_accuracies(rows: Mapping[str, Spread], title: str) -> None:
    """Prints accuracies, one row a training set, by the names of `TRAINED_ON`."""
    table = new_table(title, ("trained on", "accuracy", "std", "seeds"))
    for name, row in rows.items():
        std = "-" if row["std"] is None else f"{row['std']:.2%}"
        table.add_row(TRAINED_ON[name], f"{row['mean']:.2%}", std, str(row["seeds"]))
    show_table(table)


def spelt_accuracy(accuracy: Spread) -> str:
    """Returns mean and standard deviation in percent, such as 73.2 ±0.5."""
    std = accuracy["std"]
    deviation = "" if std is None else f" ±{100 * std:.1f}"
    return f"{100 * accuracy['mean']:.1f}{deviation}"
