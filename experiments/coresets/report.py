"""The part of the report on chosen real images: a table."""

from collections.abc import Sequence

from experiments.coresets.record import Summary
from experiments.lab.claims import Record, configured_network
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, data_table
from experiments.lab.paper import BEYOND
from experiments.lab.parts import configured_networks, spelt_mean, whole_config


def title(record: Record[Summary]) -> str:
    """Returns the network that is trained on the images."""
    return configured_network(record) if "model" in record.config else record.folder


def _tables(records: Sequence[Record[Summary]]) -> list[Markup]:
    found = []
    for record in records:
        accuracy = record.summary["accuracy"]
        ipcs = list(next(iter(accuracy.values())))
        rows: list[list[Content]] = [
            [name, *(spelt_mean(row[ipc]) for ipc in ipcs)]
            for name, row in accuracy.items()
        ]
        head = ["chosen by", *(f"{ipc} per class" for ipc in ipcs)]
        caption = "Chosen real images: test accuracy in percent, mean ± standard deviation."
        found.append(data_table(head, rows, caption))
    return found


EXPERIMENT = Experiment(
    name="coresets",
    summary=Summary,
    title=title,
    sets=lambda _: [],
    subjects=whole_config,
    networks=configured_networks,
    contents=((BEYOND, _tables),),
)
