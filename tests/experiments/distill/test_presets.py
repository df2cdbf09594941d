"""Published settings: each is one configuration that the parser accepts."""

import pytest

from distilljax import launch
from distilljax.config import FieldError
from distilljax.methods import METHODS
from distilljax.types import InputError
from experiments.distill import presets as distill_presets
from experiments.distill import run as distill_run
from experiments.distill.options import check_options


def parse(*argv):
    return launch.parse(distill_run.Config, argv, presets=distill_presets.PRESETS)


def test_every_method_has_the_three_sizes():
    assert distill_presets.BY_METHOD.keys() == METHODS.keys()
    for presets in distill_presets.BY_METHOD.values():
        assert {f"cifar10_ipc{ipc}" for ipc in (1, 10, 50)} <= presets.keys()


@pytest.mark.parametrize(
    ("method", "name"),
    [(m, name) for m, presets in distill_presets.BY_METHOD.items() for name in presets],
)
def test_a_preset_is_what_the_command_line_gives(method, name):
    preset = distill_presets.BY_METHOD[method][name]
    chosen = parse(f"--preset={name}", f"--method={method}")
    assert getattr(chosen, method) == preset.settings
    assert chosen.method == method
    assert chosen.dataset == "cifar10"
    assert chosen.convnet.width == 128
    assert f"ipc{chosen.ipc}" in name
    for option, value in preset.experiment.items():
        if not isinstance(value, dict):
            assert getattr(chosen, option) == value
    assert len(preset.source) > 10


def test_a_variant_brings_its_method_and_a_flag_wins():
    chosen = parse("--preset=datm_cifar10_ipc10", "--tm.segments=4", "--convnet.width=16")
    assert (chosen.method, chosen.labels) == ("tm", "expert")
    assert (chosen.tm.segments, chosen.tm.first_max_start) == (4, 9)
    assert chosen.convnet.width == 16


def test_a_set_to_begin_with_takes_the_place_of_noise():
    words = ["--preset=rat_cifar10_ipc1", "--init_from=set.npz"]
    assert parse(words[0]).init == "unit_noise"
    check_options(parse(*words))
    with pytest.raises(FieldError, match="init='noise'"):
        check_options(parse(*words, "--init=noise"))


def test_the_window_and_rates_of_the_sources():
    """Numbers read from the papers' tables, once more."""
    assert parse("--preset=cifar10_ipc10", "--method=tm").tm.student_steps == 30
    assert parse("--preset=cifar10_ipc1", "--method=tm").tm.max_start == 1
    gm = parse("--preset=dsa_cifar10_ipc50").gm
    assert (gm.outer_loop, gm.inner_loop) == (50, 10)
    pad = [parse(f"--preset=pad_cifar10_ipc{ipc}").tm for ipc in (1, 10, 50)]
    assert [p.skip for p in pad] == [0, 0.5, 0.25]
    assert [p.expert_epochs for p in pad] == [2, 2, 3]
    assert pad[1].replace({"skip": 0.0}) == parse("--preset=datm_cifar10_ipc10").tm
    datm = [parse(f"--preset=datm_cifar10_ipc{ipc}").tm for ipc in (1, 10, 50)]
    assert [d.skip_above for d in datm] == [1.1, 1.0, 1.0]
    assert [d.widen_steps for d in datm] == [1000, 1000, 2000]
    assert [d.lr_lr * 0.01**2 for d in datm] == pytest.approx([1e-7, 1e-5, 1e-5])
    frepo = [parse(f"--preset=frepo_cifar10_ipc{ipc}").kernel for ipc in (1, 10, 50)]
    assert all(one.flips for one in frepo)
    rat = parse("--preset=rat_cifar10_ipc10").bptt
    assert (rat.unroll, rat.window, rat.random_window, rat.inner) == (200, 60, True, "adam")
    for name in ("rat", "at"):
        given = parse(f"--preset={name}_cifar10_ipc10")
        assert given.bptt.augment == given.bptt.inner_augment == "flip_rotate"
        assert (given.bptt.clip, given.bptt.clip_running) == (2, True)
        assert given.init == "unit_noise"


def test_a_variant_of_another_method_is_refused():
    with pytest.raises(
        InputError, match=r"dsa_cifar10_ipc1 belongs to --method=gm, not tm"
    ):
        parse("--preset=dsa_cifar10_ipc1", "--method=tm")


def test_a_preset_brings_the_protocol_that_scores_its_set():
    scored = {
        name: preset.experiment["protocol"]
        for presets in distill_presets.BY_METHOD.values()
        for name, preset in presets.items()
        if not name.startswith("cifar10")
    }
    starts = {name.partition("_")[0]: protocol for name, protocol in scored.items()}
    assert (
        starts.items() >= {"rat": "rat", "dsa": "dsa", "datm": "mtt", "pad": "mtt"}.items()
    )
    for method, protocol in (("gm", "dc"), ("dm", "dsa"), ("tm", "mtt")):
        given = parse("--preset=cifar10_ipc10", f"--method={method}")
        assert given.protocol == protocol
    assert parse("--preset=rat_cifar10_ipc1", "--protocol=study").protocol == "study"


def test_names_are_listed():
    assert set(distill_presets.NAMES) == set(distill_presets.PRESETS)
    assert "cifar10_ipc10" in launch.help_text(
        distill_run.Config, program="x", presets=distill_presets.PRESETS
    )
