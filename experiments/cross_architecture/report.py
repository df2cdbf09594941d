"""The part of the report on other architectures: a table and a picture."""

from collections.abc import Hashable, Sequence

from experiments.cross_architecture.record import Summary
from experiments.lab.claims import Record
from experiments.lab.experiment import Experiment
from experiments.lab.html import Content, Markup, data_table
from experiments.lab.paper import BEYOND
from experiments.lab.parts import configured_networks, pictures_of, set_label, spelt_mean
from experiments.lab.records import paths_of


def title(record: Record[Summary]) -> str:
    """Returns the folder of the run."""
    return record.folder


def _sets(record: Record[Summary]) -> list[str]:
    return paths_of(record.summary["rows"])


def _subjects(record: Record[Summary]) -> set[Hashable]:
    rows = record.summary["accuracy"].values()
    return {(path, name) for path in _sets(record) for row in rows for name in row}


def _tables(records: Sequence[Record[Summary]]) -> list[Markup]:
    found = []
    for record in records:
        accuracy, rows = record.summary["accuracy"], record.summary["rows"]
        names = list(next(iter(accuracy.values())))
        table: list[list[Content]] = [
            [set_label(label, rows[label]["method"]), *(spelt_mean(row[n]) for n in names)]
            for label, row in accuracy.items()
        ]
        scale = record.config.get("width_scale")
        caption = (
            "Test accuracy in percent of other architectures, mean ± standard "
            f"deviation; widths times {scale}."
        )
        found.append(data_table(["trained on", *names], table, caption))
        found += pictures_of(record, CAPTIONS, title(record))
    return found


CAPTIONS = {
    "accuracy.png": "Test accuracy of networks of each architecture trained on each set",
}

EXPERIMENT = Experiment(
    name="cross_architecture",
    summary=Summary,
    title=title,
    sets=_sets,
    subjects=_subjects,
    networks=configured_networks,
    contents=((BEYOND, _tables),),
    captions=CAPTIONS,
)
