"""Experiments on distilled sets, each a command: `python -m experiments.NAME`.

A question is a folder: `run` (its options and the computation), `figures`, `record` (what
its `summary.json` holds) and `report` (`EXPERIMENT`: claims, tables, captions, and its
steps of the study). One line here adds it to `report` and `study`, in this order.
"""

EXPERIMENTS = (
    "distill",
    "recognition",
    "mixing",
    "agreement",
    "dynamics",
    "influence",
    "attributes",
    "labels",
    "subsets",
    "connectivity",
    "spectrum",
    "coresets",
    "cross_architecture",
)
