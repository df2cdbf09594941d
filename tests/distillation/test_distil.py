"""`distil` and `compare`: the main job from arrays in memory."""

import asyncio

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import distilljax
from distilljax import data, loop
from distilljax.core.outer import from_outer_loss, per_field
from distilljax.core.parameters import Trajectories
from distilljax.methods import bptt, dm, kernel, tm
from distilljax.models import mlp
from distilljax.training.evaluation import EvaluationProtocol
from distilljax.types import DistilledSet, InputError, Model
from tests.conftest import striped_images

QUICK = EvaluationProtocol(steps=20, lr=0.05)
SETTINGS = {
    "method": bptt.Config(unroll=4, real_batch=30, image_lr=0.1),
    "model": mlp.Config(width=8, depth=1),
    "steps": 12,
    "score_every": 4,
    "score_networks": 2,
    "protocol": QUICK,
}


@pytest.fixture(scope="module")
def stripes():
    train, test = striped_images(20), striped_images(20, seed=1)
    return distilljax.dataset(*train, *test)


@pytest.fixture(scope="module")
def reports():
    return []


@pytest.fixture(scope="module")
def made(stripes, reports):
    """A distillation, with what `on_progress` was given."""
    return distilljax.distil(stripes, **SETTINGS, on_progress=reports.append)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_set_for_each_class_from_arrays(made, stripes):
    assert made.distilled.images.shape == (3, 8, 8, 1)
    assert made.artefact.class_names == ("0", "1", "2")
    assert made.prepared.held_out.class_sizes.tolist() == [4, 4, 4]  # a fifth of 20
    assert [record["step"] for record in made.history] == list(range(1, 13))
    assert [r["step"] for r in made.history if "score" in r] == [4, 8, 12]
    scores = [r["score"] for r in made.history if "score" in r]
    assert made.artefact.notes["held_out_accuracy"] == max(scores)
    assert made.pixels.shape == (3, 8, 8, 1)
    assert made.pixels.min() >= 0
    assert made.pixels.max() <= 1


def test_a_notebook_shows_a_line_and_a_picture(made, stripes):
    assert repr(stripes) == (
        "Dataset(arrays: 60 training and 60 test images of 8x8x1, 3 classes)"
    )
    line = "Artefact(3 images of 8x8x1, 3 classes, distilled from arrays by bptt)"
    assert repr(made.artefact) == line
    assert repr(made) == f"Distillation({line}, 12 outer steps)"
    assert made._repr_png_()[:4] == b"\x89PNG"


def test_progress_shows_the_set_at_hand(made, reports):
    assert reports[-1].step == 12
    assert_same(reports[-1].distilled, made.result.last)
    assert_same(reports[-1].best, made.result.best)


def test_a_callback_stops_and_the_result_is_kept(stripes, made):
    def stop(progress):
        if progress.score is not None:
            raise distilljax.Stop

    cut = distilljax.distil(stripes, **SETTINGS, on_progress=stop)
    assert cut.artefact.config["steps"] == cut.result.num_steps == 4
    assert cut.history == made.history[:4]


def test_a_folder_resumes_to_the_same_set(stripes, made, tmp_path):
    """Cut by an exception of the caller; the same call goes on."""

    class CutError(Exception):
        pass

    def cut(progress):
        if progress.step >= 4:
            raise CutError

    folder = tmp_path / "run"
    options = {**SETTINGS, "checkpoints": folder, "checkpoint_seconds": 0.0}
    with pytest.raises(CutError):
        distilljax.distil(stripes, **options, on_progress=cut)

    async def cell():
        """As in a notebook, where a loop of events is running."""
        return distilljax.distil(stripes, **options)

    resumed = asyncio.run(cell())
    assert_same(resumed.distilled, made.distilled)
    assert [r["step"] for r in resumed.history] == list(range(1, 13))
    assert resumed.history[-1]["loss"] == made.history[-1]["loss"]

    more = distilljax.distil(stripes, **{**options, "steps": 14})
    assert more.result.num_steps == 14
    assert len(more.history) == 14
    with pytest.raises(InputError, match="cannot be restored"):
        distilljax.distil(stripes, **{**options, "key": 1})


@pytest.mark.parametrize("key", [7, np.int64(7), jax.random.key(7), jax.random.PRNGKey(7)])
def test_a_seed_is_the_key_that_it_makes(key):
    assert distilljax.keys.seed_of(distilljax.keys.as_key(key)) == 7


def test_the_file_is_tested_as_what_was_saved(made, stripes, tmp_path):
    made.save(tmp_path / "mine.npz")
    loaded = distilljax.load(tmp_path / "mine.npz")
    assert_same(loaded.distilled, made.distilled)
    own = {"networks": 2, "whole_epochs": 1, "whole_networks": 2}
    found = made.compare(**own)
    again = distilljax.compare(loaded, stripes, **own)
    assert list(found.accuracy) == list(again.accuracy) == ["distilled", "random", "whole"]
    assert found.scores["ior"] == pytest.approx(
        found.accuracy["distilled"]["mean"] - found.accuracy["random"]["mean"]
    )
    lines = str(found).splitlines()
    assert lines[1].startswith("the distilled set ")
    assert f"{found.accuracy['distilled']['mean']:.2%}" in lines[1]
    assert lines[-1].startswith("DD-Ranking: IOR ")


def linear():
    return Model(
        init=lambda key: {"w": 0.01 * jax.random.normal(key, (64, 3))},
        features=None,
        apply=lambda params, images: images.reshape(len(images), -1) @ params["w"],
    )


def test_own_network_and_own_method(stripes, tmp_path):
    """A method that draws images to the class means of the real ones."""

    def outer_loss(distilled, key, aux, real):
        mean = real.transform(real.images[real.class_index]).mean(axis=1)
        return jnp.square(distilled.images - mean).sum(), aux

    own = from_outer_loss(outer_loss, per_field(images=optax.sgd(0.25)))
    found = distilljax.distil(
        stripes,
        own,
        linear(),
        steps=30,
        score_every=30,
        score_networks=1,
        protocol=QUICK,
        init="noise",
    )
    real = found.prepared.real
    means = real.transform(real.images[real.class_index]).mean(axis=1)
    np.testing.assert_allclose(found.distilled.images, means, atol=1e-4)
    assert found.artefact.method == found.artefact.config["model"] == "own"
    found.save(tmp_path / "own.npz")
    loaded = distilljax.load(tmp_path / "own.npz")
    with pytest.raises(InputError, match=r"names the network 'own'.*give the model"):
        distilljax.compare(loaded, stripes)
    assert distilljax.compare(loaded, stripes, linear(), networks=2).accuracy["distilled"]

    longer = distilljax.distil(
        stripes, own, linear(), steps=1, score_networks=1, protocol=QUICK,
        init=found.distilled,
    )  # fmt: skip
    assert longer.history[0]["loss"] < 1e-4


def test_unit_noise_is_the_noise_with_norm_one(stripes):
    """In the space of the preprocessing, of which the outer loss sees the start."""

    def outer_loss(distilled, key, aux, real):
        return jnp.square(distilled.images).sum(), aux

    own = from_outer_loss(outer_loss, per_field(images=optax.sgd(0.25)))
    settings = {"ipc": 2, "steps": 1, "score_networks": 1, "protocol": QUICK}
    plain, unit = (
        distilljax.distil(stripes, own, linear(), init=init, **settings)
        for init in ("noise", "unit_noise")
    )
    np.testing.assert_allclose(unit.history[0]["loss"], 6, rtol=1e-5)
    ours, noise = (2 * np.asarray(x.distilled.images) for x in (unit, plain))
    assert 300 < plain.history[0]["loss"] < 470  # of 384 standard normal numbers
    norms = np.linalg.norm(noise.reshape(6, -1), axis=1)
    np.testing.assert_allclose(ours, noise / norms[:, None, None, None], rtol=1e-5)
    assert unit.artefact.config["init"] == "unit_noise"


X = np.zeros((6, 8, 8, 1), np.uint8)
TRAJECTORIES = Trajectories(jnp.zeros((1, 2, 3)), jnp.int32(0))
BEGUN = DistilledSet(jnp.zeros((3, 8, 8, 1)), jnp.eye(3), jnp.float32(-3))
WRONG = {
    "data": ({"data": (X, X)}, r"^data is a tuple; make a data set of arrays with dist"),
    "method": ({"method": "mtt"}, r"^there is no method 'mtt'; choose one of bptt, gm"),
    "model": ({"model": "resnet18"}, r"^there is no model 'resnet18'; choose one of"),
    "function": ({"model": Model._make([None] * 3)}, r"^model.init is None, and must be"),
    "protocol": ({"protocol": "best"}, r"^there is no protocol 'best'; choose one of"),
    "ipc": ({"ipc": 17}, r"^ipc=17: 17 images of each class are wanted, the smallest has"),
    "large": (
        {"ipc": 10**9, "init": "noise"},
        r"^a distillation of 3,000,000,000 images needs .* of memory, and this machine has",
    ),
    "steps": ({"steps": 0}, r"^steps=0: must be at least 1"),
    "float": ({"steps": 1.5}, r"^steps=1.5: give a whole number"),
    "key": ({"key": "seed"}, r"^key='seed': give a seed such as 0, or jax.random.key"),
    "keys": ({"key": jax.random.split(jax.random.key(0))}, r"^key holds \[2\] keys; give"),
    "held_out": ({"held_out": 20}, r"^held_out=20: the smallest class, .*, has 20"),
    "preprocess": ({"preprocess": "zoom"}, r"^there is no preprocessing 'zoom'; choose"),
    "init": (
        {"init": "white"},
        r"^init='white': choose 'real', 'noise', 'unit_noise' or a D",
    ),
    "batch": ({"method": bptt.Config()}, r"^bptt.real_batch=256: there are 48 training"),
    "experts": ({"method": "tm"}, r"^method tm needs experts: Trajectories of the same"),
    "no experts": (
        {"method": dm.Config(), "experts": TRAJECTORIES},
        r"^experts: method dm uses none; leave them out",
    ),
    "callback": ({"on_progress": "print"}, r"^on_progress='print': give a function, such"),
    "rate": ({"learning_rate": "a"}, r"^learning_rate='a': give a finite number above 0"),
    "no rate": ({"learning_rate": 0.0}, r"^learning_rate=0.0: give a finite number above"),
    "infinite": ({"learning_rate": np.inf}, r"^learning_rate=inf: give a finite number"),
    "images": ({"init": X}, r"^init is a ndarray: choose 'real', 'noise', 'unit_noise' or"),
    "raw": (
        {"init": DistilledSet(jnp.asarray(X[:3]), jnp.eye(3), jnp.float32(-3))},
        r"^init.images: uint8; a distilled set is floating point",
    ),
    "line search": (
        {"optimizers": distilljax.Optimizers(images=optax.lbfgs())},
        r"^the optimizer needs 'value', 'grad' and 'value_fn' beside .* outer step",
    ),
    "folder": ({"checkpoints": __file__}, r"^checkpoints=.*: the folder cannot be made"),
    "no folder": ({"checkpoints": 3}, r"^checkpoints=3: give the path of a folder"),
    "never": ({"checkpoint_seconds": np.nan}, r"^checkpoint_seconds=nan: give a finite"),
    "share": ({"held_out": 2.5}, r"^held_out=2.5: give a whole number"),
    "confidences": ({"confidence": [0.9]}, r"^confidence=\[0.9\]: give a finite number"),
    "protocols": ({"protocol": []}, r"^there is no protocol \[\]; choose one of"),
    "two rates": ({"init": BEGUN, "learning_rate": 0.1}, r"^learning_rate: init is a set"),
    "two labels": ({"init": BEGUN, "confidence": 0.9}, r"^confidence: init is a set"),
    "fewer labels": (
        {"init": BEGUN._replace(label_logits=jnp.eye(3)[:2])},
        r"^init has \[3\] images, \[2\] labels and log_lr \[\]; give as many",
    ),
    "rates": ({"init": BEGUN._replace(log_lr=jnp.zeros(2))}, r"and log_lr \[2\]; give as"),
    "NaN": (
        {"init": BEGUN._replace(images=jnp.full((3, 8, 8, 1), jnp.nan))},
        r"^init.images holds NaN or infinity",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(stripes, name):
    changed, message = WRONG[name]
    with pytest.raises(InputError, match=message) as error:
        distilljax.distil(**{"data": stripes, **SETTINGS, **changed})
    assert "\n" not in str(error.value)


def test_a_comparison_refuses_what_it_cannot_use(made, stripes):
    train, test = striped_images(4), striped_images(4, seed=1)
    wide = distilljax.dataset(
        *(x.repeat(2, axis=2) if x.ndim == 4 else x for x in (*train, *test))
    )
    with pytest.raises(InputError, match=r"images \[8, 8, 1\] of 3 classes, the data"):
        distilljax.compare(made.artefact, wide)
    with pytest.raises(InputError, match="give a list of random, herding, k_centre"):
        made.compare(baselines="random")
    with pytest.raises(InputError, match=r"^labels='Soft': choose own or hard$"):
        distilljax.compare(made.artefact, stripes, labels="Soft")
    with pytest.raises(InputError, match=r"^whole_networks=0: must be at least 1"):
        made.compare(whole_epochs=1, whole_networks=0)


def test_a_diverged_run_names_what_to_lower(stripes):
    settings = {**SETTINGS, "method": bptt.Config(unroll=4, real_batch=30, inner_lr=1e8)}
    with pytest.raises(loop.DivergedError, match=r"; lower image_lr=0.1 or inner_lr=") as e:
        distilljax.distil(stripes, **settings, preprocess=data.Identity())
    assert e.value.last_good.images.shape == (3, 8, 8, 1)


def test_targets_are_compared_as_the_protocol_reads_them(stripes):
    """Learned real-valued labels, which cross-entropy does not read: hard ones."""
    learned = kernel.Config(pool=2, max_age=4, real_batch=30)
    settings = {**SETTINGS, "method": learned, "steps": 1, "score_networks": 1}
    found = distilljax.distil(stripes, **settings)
    assert found.artefact.targets is not None
    compared = found.compare(networks=2, whole_epochs=0)
    assert list(compared.accuracy) == ["distilled", "random"]


MATCHING = {
    **SETTINGS,
    "method": tm.Config(student_steps=2, expert_epochs=1, max_start=0, augment=""),
}


def experts_of(*seeds, first_epoch=0):
    """One expert, whose epochs are random weights."""
    model = mlp.make(SETTINGS["model"], (8, 8, 1), 3)
    rows = [
        jax.flatten_util.ravel_pytree(model.init(jax.random.key(seed)))[0] for seed in seeds
    ]
    return Trajectories(jnp.stack(rows)[None], jnp.int32(first_epoch))


def test_experts_of_other_epochs_are_refused_before_a_folder_is_made(stripes, tmp_path):
    experts = experts_of(*range(8), first_epoch=5)
    with pytest.raises(
        InputError, match=r"^the experts hold epochs 5\.\.12, and min_start=0"
    ):
        distilljax.distil(stripes, **MATCHING, experts=experts, checkpoints=tmp_path / "a")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_is_resumed_with_the_same_experts_alone(stripes, tmp_path):
    options = {**MATCHING, "steps": 1, "score_networks": 1, "checkpoints": tmp_path}
    distilljax.distil(stripes, **options, experts=experts_of(0, 1, 2))
    same = Trajectories(np.asarray(experts_of(0, 1, 2).params), 0)
    assert len(distilljax.distil(stripes, **options, experts=same).history) == 1
    for other in (experts_of(0, 1, 3), experts_of(0, 1, 2, first_epoch=-1)):
        with pytest.raises(InputError, match="cannot be restored"):
            distilljax.distil(stripes, **options, experts=other)


@pytest.mark.slow
def test_experts_reach_trajectory_matching(stripes):
    found = distilljax.distil(stripes, **MATCHING, experts=experts_of(0, 1))
    assert found.artefact.method == "tm"
    assert np.isfinite(found.history[-1]["loss"])


def test_without_compilation_the_outer_loop_is_refused(stripes):
    with jax.disable_jit(), pytest.raises(InputError, match="disable_jit is on"):
        distilljax.distil(stripes, dm.Config(augment=""), SETTINGS["model"], steps=1)


def test_a_set_that_is_learned_further_is_recorded_with_its_own_rate(stripes):
    settings = SETTINGS | {"steps": 1, "score_networks": 1}
    found = distilljax.distil(stripes, **settings, init=BEGUN)
    held = found.artefact.config
    assert held["init"] == "own"
    assert held["learning_rate"] == pytest.approx(np.exp(-3))
    assert held["confidence"] is None


def test_two_runs_do_not_share_a_folder(stripes, tmp_path):
    def again(progress):
        with pytest.raises(InputError, match="another run is in that folder"):
            distilljax.distil(stripes, **settings, checkpoints=tmp_path)

    settings = SETTINGS | {"steps": 1, "score_networks": 1}
    for _ in range(2):
        distilljax.distil(stripes, **settings, checkpoints=tmp_path, on_progress=again)


def test_a_folder_of_another_program_is_left_as_it_is(stripes, tmp_path):
    theirs = tmp_path / "metrics.jsonl"
    theirs.write_text('{"loss": 1.0}\n')
    with pytest.raises(InputError, match="a record that is not of a step"):
        distilljax.distil(stripes, **SETTINGS, checkpoints=tmp_path)
    assert theirs.read_text() == '{"loss": 1.0}\n'


def test_arguments_are_not_traced(stripes):
    with pytest.raises(InputError, match="learning_rate is traced; call this outside"):
        jax.jit(lambda rate: distilljax.distil(stripes, learning_rate=rate).distilled)(0.1)


def test_comparison_takes_the_data_of_the_set(made, stripes):
    named = made.artefact._replace(class_names=("a", "b", "c"))
    other = stripes._replace(class_names=("x", "y", "z"), fingerprint="other")
    with pytest.raises(InputError, match=r"classes a, \.\.\., the data arrays of x"):
        distilljax.compare(named, other, networks=1)
    with pytest.raises(InputError, match="artefact is a str; read a file with"):
        distilljax.compare("set.npz", stripes)
    for wrong in (None, [["random"]]):
        with pytest.raises(InputError, match=r"baselines=.*: give a list of random"):
            distilljax.compare(made.artefact, stripes, baselines=wrong)
