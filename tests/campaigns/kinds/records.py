"""Hostile records for the report, and hostile descriptions of experts."""

import html.parser
import json
import shutil

import numpy as np

from tests.campaigns.kinds.artefacts import change_json
from tests.campaigns.trials import Trial, judge, place
from tests.campaigns.world import World


def experts(world: World, rng: np.random.Generator, number: int) -> tuple[str, Trial]:
    """Changes one value of experts.json, then distils from them."""
    with place(world.root / "trials", number) as folder:
        store = folder / "experts"
        shutil.copytree(world.finished("train_experts"), store)
        path = store / "experts.json"
        changed, what = change_json(rng, json.loads(path.read_text()))
        path.write_text(json.dumps(changed))
        workdir = folder / "run"
        ended = world.run("matching", workdir, experts_dir=str(store))
        return f"experts.json: {what}", judge(ended)


class _Parts(html.parser.HTMLParser):
    """The kinds of elements and attributes of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found |= {tag} | {f"{tag}.{name}" for name, _ in attrs}


def report(world: World, rng: np.random.Generator, number: int) -> tuple[str, Trial]:
    """Changes one value of one record, then makes the page."""
    world.make_sets()
    with place(world.root / "trials", number) as folder:
        held = folder / "records"
        shutil.copytree(world.records, held)
        files = sorted(held.rglob("*.json"))
        path = files[int(rng.integers(len(files)))]
        changed, what = change_json(rng, json.loads(path.read_text()))
        path.write_text(json.dumps(changed))
        what = f"{path.relative_to(held)}: {what}"
        ended = world.run("report", folder, records=str(held))
        page = folder / "report.html"

        def check() -> str | None:
            known = _Parts((world.finished("report") / "report.html").read_text()).found
            added = _Parts(page.read_text()).found - known
            return f"the page has {sorted(added)}" if added else None

        return what, judge(ended, check)
