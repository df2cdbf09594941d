"""The page: what is read, what is refused, and that it is sound HTML that needs nothing."""

import html.parser
import json
import pathlib
import re
import shutil

import numpy as np
import PIL.Image
import pytest

from distilljax import launch
from distilljax.analysis.statistics import Interval
from distilljax.types import InputError
from experiments.lab.claims import NO_RECORD, NOT_SUPPORTED, SUPPORTED, UNDECIDED, Reading
from experiments.lab.experiment import load_all
from experiments.lab.html import STYLE
from experiments.report import collect as collect_module
from experiments.report import run as run_module
from experiments.report.verdicts import axis, forest
from tests.experiments.agreement.records import record as agreement
from tests.experiments.attributes.test_report import attributes
from tests.experiments.distill.made import distill
from tests.experiments.dynamics.test_report import dynamics
from tests.experiments.influence.records import record as influence
from tests.experiments.made_up import DATASET, METHODS
from tests.experiments.mixing.test_report import mixing
from tests.experiments.recognition.test_report import recognition

TABLE = load_all()
CLAIMS = [claim for experiment in TABLE.values() for claim in experiment.claims]


def collect(root, dataset=None):
    return collect_module.collect(root, TABLE, dataset)


def write(root, record, name=None, **summary):
    """A record as a run leaves it."""
    folder = pathlib.Path(root, name or record.experiment)
    folder.mkdir(parents=True)
    described = {
        "experiment": f"experiments.{record.experiment}",
        "config": dict(record.config),
        "command": record.command,
    }
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "summary.json").write_text(json.dumps({**record.summary, **summary}))
    return folder


def drawn(path, size=(40, 30), noise=False):
    values = np.full((size[1], size[0], 3), 200, np.uint8)
    if noise:
        values = np.random.default_rng(0).integers(0, 256, values.shape, np.uint8)
    PIL.Image.fromarray(values).save(path)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Every experiment once, the sets beside them, in the current directory."""
    monkeypatch.chdir(tmp_path)
    for method in METHODS:
        folder = write("sets", distill(0.1, method), f"{method}_ipc10")
        drawn(folder / "grid.png")
    root = pathlib.Path("study")
    pictured = {
        "recognition": recognition(0.1),
        "mixing": mixing((0.05, -0.05)),
        "agreement": agreement(0.05),
        "dynamics": dynamics(runs=1),
    }
    for name, record in pictured.items():
        drawn(write(root, record) / f"{name}.png")
    for method in ("tm", "dm"):
        drawn(
            write(root, influence(method=method), f"influence_{method}") / "influence.png"
        )
        write(root, attributes(method=method), f"attributes_{method}")
    return root


def made(root="study", **options):
    config = run_module.Config(records=str(root), **options)
    found = run_module.run(config)
    return pathlib.Path(config.out or f"{root}/report.html").read_text(), found


VOID = {"img", "meta", "br", "link", "input", "hr"}


class Reader(html.parser.HTMLParser):
    """Fails on a tag that is closed out of turn; keeps tags and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.tags.append((tag, dict(attrs)))
        if tag == "p":
            assert "p" not in self.open
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag, (tag, self.open)

    def handle_data(self, text):
        if "style" not in self.open:
            self.text.append(text)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def said(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


BLOCKS = {"div", "p", "table", "ul", "section", "article", "figure", "header", "h2", "h3"}


def test_the_page_is_sound_and_needs_nothing_else(study):
    text, _ = made()
    reader = Reader(text)
    assert text.startswith("<!doctype html>")
    for tag in ("script", "link", "iframe", "object", "video", "base"):
        assert not reader.all(tag)
    for attrs in reader.all("img"):
        assert re.match(r"data:image/(png|webp);base64,[A-Za-z0-9+/=]+$", attrs["src"])
        assert attrs["alt"]
        assert int(attrs["width"]) > 0
        assert int(attrs["height"]) > 0
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    outside = []
    for attrs in reader.all("a"):
        target = attrs["href"]
        if target.startswith("#"):
            assert target[1:] in ids
        elif target.startswith("http"):
            outside.append(target)
        else:
            assert pathlib.Path("study", target).is_dir(), target
    assert outside == ["https://arxiv.org/abs/2406.04284"]
    for _, attrs in reader.tags:
        assert not any(name.startswith("on") for name in attrs)
    assert not re.search(r"url\(|@import|http", STYLE)
    # Only the links may name a scheme.
    assert text.count("http") == 1


def test_inline_elements_hold_no_blocks(study):
    text, _ = made()

    class Nesting(Reader):
        def handle_starttag(self, tag, attrs):
            if tag in BLOCKS:
                assert not {"span", "a", "p", "h2", "h3"} & set(self.open), (tag, self.open)
            super().handle_starttag(tag, attrs)

    Nesting(text)


def test_the_page_says_what_the_records_hold(study):
    text, found = made(title="A <title> & more")
    said = Reader(text).said()
    assert "A <title> & more" in said
    verdicts = {one["id"]: one["verdict"] for one in found["claims"]}
    assert verdicts["beats_random"] == SUPPORTED
    assert verdicts["recognised_less"] == NOT_SUPPORTED
    assert verdicts["recognised_early"] == UNDECIDED  # one run
    assert sum(found["counts"].values()) == len(CLAIMS)
    for claim in CLAIMS:
        assert f'id="claim-{claim.id}"' in text
        assert claim.statement in said
    assert said.count("✓") > found["counts"][SUPPORTED]  # a sign beside each word
    assert "ConvNets of width 32, not 128 as in the paper" in said
    assert "Training on real images was followed in a single run" in said
    assert "CIFAR-10 (tfds)" in said
    assert "distilljax 0.1.0, jax 0.10.2, Python 3.11.7" in said
    assert "Total time 12m00s" in said  # twelve records
    assert text.count("<figure>") == 4 + 4 + 2  # sets, experiments, influence
    assert "paper 58.7" in said  # bptt, +0, beside ours


def test_verdicts_are_there_for_programs(study):
    made()
    found = json.loads(pathlib.Path("study/verdicts.json").read_text())
    assert found["dataset"] == DATASET
    by_id = {one["id"]: one for one in found["claims"]}
    mixing = by_id["mixing_lowers"]
    assert mixing["verdict"] == SUPPORTED
    assert mixing["deciding"]["where"] == "+10 per class"
    assert mixing["deciding"]["level"] == pytest.approx(0.975)  # the best of two
    low, high = mixing["deciding"]["interval_at_level"]
    inner = mixing["deciding"]["interval"]
    assert low < inner[0] < inner[1] < high < 0
    assert mixing["figure"] == "mixing/mixing.png"
    assert mixing["deciding"]["folder"] == "mixing"
    pixels = by_id["pixels_leave_the_range"]
    assert pixels["figure"] is None  # it was not drawn
    assert by_id["beats_random"]["figure"] == "../sets/bptt_ipc10/grid.png"


def test_the_same_records_give_the_same_bytes(study):
    first, _ = made()
    second, _ = made()
    assert first == second


def test_the_page_may_lie_elsewhere_and_its_links_still_lead_home(study):
    text, _ = made(out="pages/deep/page.html")
    folders = [
        attrs["href"] for attrs in Reader(text).all("a") if attrs["href"].endswith("/")
    ]
    assert len(folders) == 4 + 4 + 4
    for target in folders:
        assert pathlib.Path("pages/deep", target).is_dir()
    assert pathlib.Path("pages/deep/verdicts.json").exists()


def test_the_papers_numbers_are_not_beside_sets_of_another_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = mixing((0.05, -0.05))
    write("ten", record)
    for row in record.summary["rows"].values():
        row["images_per_class"] = 1
    write("one", record)
    assert "paper 58.7" in Reader(made("ten")[0]).said()
    assert "paper 58.7" not in Reader(made("one")[0]).said()


def test_names_are_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = '<img src=x onerror="alert(1)">&'
    record = mixing((0.05, -0.05), methods=("tm",))
    held = dict(record.summary)
    for key in ("accuracy", "rows"):
        held[key] = {evil if k == "tm_ipc10" else k: v for k, v in held[key].items()}
    write("study", record._replace(summary=held, command=f"python {evil} --x='<b>'"))
    found = attributes()
    found.summary["enrichment"][0]["attribute"] = evil
    write("study", found)
    text, _ = made()
    assert evil not in text
    reader = Reader(text)
    assert not any("onerror" in attrs for _, attrs in reader.tags)
    assert evil in reader.said()


def test_a_study_without_pictures_or_makers_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("study", mixing((0.05, -0.05)))
    text, found = made()
    said = Reader(text).said()
    assert "There is no record of how sets/tm_ipc10/distilled.npz was made" in said
    assert "No finished run of experiments.recognition is among the records." in said
    assert found["counts"][NO_RECORD] == len(CLAIMS) - 2
    assert "<figure>" not in text


def test_sets_made_of_other_data_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("study", mixing((0.05, -0.05), methods=("tm",)))
    other = {**DATASET, "name": "svhn", "fingerprint": "77"}
    write("sets", distill(0.1, "tm"), "tm_ipc10", dataset=other)
    text, found = made()
    assert "was made of other data (svhn)" in Reader(text).said()
    assert found["claims"][0]["verdict"] == NO_RECORD


def test_unfinished_runs_and_those_that_are_not_read_are_named(study):
    folder = write(study, mixing((0.0, 0.0)), "cut")
    (folder / "summary.json").unlink()
    write(study, distill(0.1)._replace(experiment="train_experts"), "experts")
    (study / "foreign").mkdir()
    (study / "foreign" / "config.json").write_text('{"of": "another program"}')
    said = Reader(made()[0]).said()
    assert "Unfinished: mixing in study/cut ; it goes on by" in said
    assert "Not read here: train_experts in study/experts" in said
    assert "foreign" not in said


def test_records_are_found_at_any_depth_and_through_links(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("far/away", mixing((0.05, -0.05)))
    pathlib.Path("study/deep").mkdir(parents=True)
    pathlib.Path("study/deep/link").symlink_to(pathlib.Path("far/away").resolve())
    pathlib.Path("study/deep/loop").symlink_to(pathlib.Path("study").resolve())
    write("study/.hidden", mixing((0.05, -0.05), methods=("dm",)))
    cut = write("study", mixing((0.0, 0.0)), "cut") / "summary.json"
    cut.unlink()
    found = collect(pathlib.Path("study"))
    assert [r.folder for r in found.records] == ["study/deep/link/mixing"]
    assert [r.folder for r in found.unfinished] == ["study/cut"]


def test_copies_are_dropped_and_contradictions_refused(study):
    shutil.copytree("study/mixing", "study/mixing_again")
    found = collect(study)
    assert [r.folder for r in found.records if r.experiment == "mixing"] == ["study/mixing"]
    write(study, mixing((0.5, 0.5)), "mixing_other")
    with pytest.raises(InputError, match="study/mixing and study/mixing_other are both"):
        collect(study)


def test_records_of_other_sets_architectures_or_curves_are_merged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for method in ("tm", "bptt"):
        write("study", mixing((0.05, -0.05), methods=(method,)), f"mixing_{method}")
    both = recognition(0.1)
    for name in ("convnet", "convnet16"):
        held = {
            **both.summary,
            "networks": {name: both.summary["networks"][name]},
            "recognition": {
                row: {name: cells[name]}
                for row, cells in both.summary["recognition"].items()
            },
        }
        write("study", both._replace(summary=held), f"recognition_{name}")
    whole = dynamics()
    reverse = {**whole.summary, "trained_on": "sets/tm_ipc10/distilled.npz"}
    write("study", whole)
    write("study", whole._replace(summary=reverse), "dynamics_reverse")
    _, found = made()
    verdicts = {one["id"]: one for one in found["claims"]}
    assert verdicts["mixing_lowers"]["verdict"] == SUPPORTED
    where = {r["where"] for r in verdicts["recognised_as_well"]["readings"]}
    assert where == {"convnet", "convnet16"}


def test_a_page_is_about_one_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("study", mixing((0.05, -0.05)))
    other = {**DATASET, "name": "embedded Fashion-MNIST", "source": "embedded"}
    other["fingerprint"] = "6f9b43a82c"
    write("study", influence(), dataset=other)
    with pytest.raises(
        InputError, match=r"cifar10 \(study/mixing\).*choose with --dataset"
    ):
        collect(pathlib.Path("study"))
    for name in ("embedded", "Embedded Fashion-MNIST", "6f9b43a8"):
        found = collect(pathlib.Path("study"), name)
        assert [r.experiment for r in found.records] == ["influence"]
    with pytest.raises(InputError, match="no such data are among the records"):
        collect(pathlib.Path("study"), "svhn")
    said = Reader(made(dataset="embedded")[0]).said()
    assert "the paper's are CIFAR-10" in said
    assert "paper (CIFAR-10, width 128)" in said


@pytest.mark.parametrize(
    ("name", "text"), [("config.json", "{"), ("summary.json", "[1]"), ("summary.json", "")]
)
def test_damaged_records_are_refused_by_name(study, name, text):
    (study / "mixing" / name).write_text(text)
    with pytest.raises(InputError, match=f"study/mixing/{name}"):
        made()


@pytest.mark.parametrize(
    ("folder", "change"),
    [
        ("influence_tm", lambda held: held.update(images=0)),
        ("mixing", lambda held: held["rows"].popitem()),
    ],
)
def test_records_whose_values_do_not_fit_are_refused_by_name(study, folder, change):
    path = study / folder / "summary.json"
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))
    with pytest.raises(InputError, match=rf"{folder}.*(do not fit together|is missing)"):
        made()


def test_a_command_whose_quotation_does_not_end_is_shown(study):
    path = study / "mixing" / "config.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "command": "python -m x --a='open"}))
    assert "python -m x --a='open" in Reader(made()[0]).said()


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        collect(tmp_path / "none")
    with pytest.raises(InputError, match="holds no finished run of distill"):
        collect(tmp_path)
    with pytest.raises(InputError, match="name a folder of runs"):
        run_module.run(run_module.Config())


def test_a_page_that_cannot_be_written_is_an_error(study):
    pathlib.Path("file").write_text("")
    with pytest.raises(InputError, match="cannot write to file"):
        made(out="file/page.html")


def test_the_table_of_verdicts_is_printed(study, capsys):
    made()
    printed = capsys.readouterr().out
    for claim in CLAIMS:
        assert claim.id in printed
    assert "✕ not supported" in printed
    assert "<" not in printed.replace("< 0.001", "")


def test_the_command_line(study):
    config = launch.parse(run_module.Config, ["--records=study", "--dataset=cifar10"])
    assert config == run_module.Config(records="study", dataset="cifar10")


def test_an_interval_far_longer_than_the_others_ends_in_an_arrow():
    short = Reading("tm", "points", 0.0, True, value=0.1, interval=Interval(0.05, 0.15))
    long = short._replace(interval=Interval(-90.0, 90.2))
    scale = axis([short, long])
    assert scale is not None
    assert scale.high < 1
    assert forest(short, scale) != forest(long, scale)
    assert scale.at(-90.0) >= 0
    assert scale.at(90.0) <= 240
    page = Reader(forest(long, scale))
    (line,) = (one for one in page.all("line") if one["class"] == "interval")
    ends = [one["d"] for one in page.all("path") if one["class"] == "end"]
    for end, tip, inwards in zip(ends, (line["x1"], line["x2"]), (1, -1), strict=True):
        x1, y1, x2, y2, x3, y3 = map(float, re.findall(r"[\d.]+", end))
        assert (x2, y2) == (float(tip), float(line["y1"]))
        assert x1 == x3
        assert 0 < (x1 - x2) * inwards < 10
        assert 0 < y2 - y1 == y3 - y2


def test_equal_numbers_have_an_axis():
    """As where both sets reach 100 % and nothing is between them."""
    same = Reading("tm", "points", 0.0, True, value=0.0, interval=Interval(0.0, 0.0))
    scale = axis([same, same])
    assert scale is not None
    assert scale.low < 0 < scale.high
    assert Reader(forest(same, scale)).all("circle")
