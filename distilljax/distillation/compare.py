"""What a distilled set is worth beside real images, in one call."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from distilljax import checks, data, io, keys
from distilljax.analysis.statistics import Spread
from distilljax.comparison import fair
from distilljax.comparison.accuracy import TRAINED_ON
from distilljax.comparison.real import BASELINES, select_baselines, validation_images
from distilljax.config import Config
from distilljax.data import Dataset
from distilljax.distillation import choices
from distilljax.distillation.choices import DataChoice, ModelChoice, ProtocolChoice
from distilljax.models import MODELS
from distilljax.training.evaluation import EvaluationProtocol, Labels, as_batch
from distilljax.types import InputError, Key, Model, RealSet


class Comparison(NamedTuple):
    """Test accuracies of fresh networks, and the scores of DD-Ranking; prints as a table.

    Of the example of `distil`:

        >>> print(made.compare(networks=2, whole_epochs=0))
        trained on                           accuracy     std  networks
        the distilled set                     ...%         2
        as many random real images            ...%         2
        DD-Ranking: IOR ... points.

    Attributes:
      accuracy: mean, standard deviation and values over networks, by what they were
        trained on: a key of `distilljax.comparison.accuracy.TRAINED_ON`.
      scores: those of `distilljax.comparison.fair` whose networks were trained.
    """

    accuracy: Mapping[str, Spread]
    scores: fair.Scores

    def __str__(self) -> str:
        lines = [f"{'trained on':<36}{'accuracy':>9}{'std':>8}{'networks':>10}"]
        for name, row in self.accuracy.items():
            std = "-" if row["std"] is None else f"{row['std']:.2%}"
            lines.append(
                f"{TRAINED_ON[name]:<36}{row['mean']:>9.2%}{std:>8}{row['seeds']:>10}"
            )
        scores = fair.spelt_scores(self.scores)
        return "\n".join([*lines, *([scores] if scores else [])])

    def __repr__(self) -> str:
        return str(self)


class Trained(NamedTuple):
    """How many networks are trained in a comparison, and on what.

    Attributes:
      networks: on the set and on each baseline.
      baselines: of `distilljax.comparison.real.BASELINES`.
      scores: train what the scores of DD-Ranking need besides.
      whole_epochs: on the whole training set; 0: none.
      whole_networks: on the whole training set.
      expert_epochs: of the network that labels random images beside soft labels.
    """

    networks: int = 5
    baselines: Sequence[str] = ("random",)
    scores: bool = True
    whole_epochs: int = 0
    whole_networks: int = 3
    expert_epochs: int = 3


class Tested(NamedTuple):
    """A finished set with the data and the network that it is tested with.

    Attributes:
      artefact: the set.
      data: the data set.
      model: the network.
      protocol: how networks are trained.
      labels: the set's own labels, or hard ones.
      chosen_from: real images that coresets choose from; None: the training images.
      looked_at: training images that the protocol may look at; None: all.
      ipc: images a class of the baselines.
    """

    artefact: io.Artefact
    data: data.Dataset
    model: Model
    protocol: EvaluationProtocol
    labels: Labels
    chosen_from: RealSet | None
    looked_at: data.Split | None
    ipc: int


def measure(
    tested: Tested, trained: Trained, key: Key, expert_key: Key, seed: int
) -> Comparison:
    """Trains the networks of a comparison and tests them.

    Args:
      tested: the set, data and network.
      trained: the networks.
      key: their root.
      expert_key: of the network that labels random images.
      seed: draws random images.

    Raises:
      InputError: unknown or too large baselines, labels that are unknown or that the
        protocol cannot read, no networks.
    """
    given: Any = trained.baselines
    names = tuple(given) if isinstance(given, Iterable) else (given,)
    if isinstance(given, str) or not all(name in tuple(BASELINES) for name in names):
        raise InputError(
            f"baselines={trained.baselines!r}: give a list of {', '.join(BASELINES)}, such "
            "as ['random']"
        )
    networks = checks.positive(trained.networks, "networks")
    if trained.whole_epochs:
        checks.positive(trained.whole_networks, "whole_networks")
    loaded, made, transform = tested.data, tested.artefact, tested.artefact.transform
    # Wrong labels are refused here, before images are chosen.
    as_batch(made.distilled, tested.protocol, targets=made.targets, labels=tested.labels)
    train, test = (
        data.on_device(split, transform, loaded.num_classes)
        for split in (loaded.train, loaded.test)
    )
    real = train if tested.chosen_from is None else tested.chosen_from
    looked_at = loaded.train if tested.looked_at is None else tested.looked_at
    problem = fair.Problem(
        key,
        expert_key,
        networks,
        tested.model,
        tested.protocol,
        made.distilled,
        made.targets,
        tested.labels,
        select_baselines(names, loaded.train, real, tested.ipc, networks, seed),
        train,
        test,
        validation_images(tested.protocol, looked_at, transform, loaded.num_classes),
    )
    wanted = fair.Wanted(
        trained.scores, trained.whole_epochs, trained.whole_networks, trained.expert_epochs
    )
    return Comparison(*fair.measure_fairly(problem, wanted))


def compare(
    artefact: io.Artefact,
    data: DataChoice,
    model: ModelChoice | None = None,
    protocol: ProtocolChoice | None = None,
    *,
    key: int | Key = 0,
    labels: Labels = "own",
    networks: int = 5,
    baselines: Sequence[str] = ("random",),
    scores: bool = True,
    whole_epochs: int = 0,
    whole_networks: int = 3,
    expert_epochs: int = 3,
) -> Comparison:
    """Tests what fresh networks learn from a distilled set, beside real images.

    Of the example of `distil`:

        >>> found = distilljax.compare(made.artefact, data, networks=2)
        >>> sorted(found.accuracy), found.accuracy["distilled"]["seeds"]
        (['distilled', 'random'], 2)

    Args:
      artefact: the set, made here or loaded from a file.
      data: the data set that it was made of, whose test images are used.
      model: the network; None: the one that the artefact names.
      protocol: how networks are trained; None: as the set was made for.
      key: a seed or a PRNG key.
      labels: the set's own labels, or `hard`, the most likely class of each.
      networks: fresh networks trained on the set, and on each baseline.
      baselines: ways to choose as many real images: random, herding, k_centre.
      scores: train what the scores of DD-Ranking need besides.
      whole_epochs: epochs of networks trained on the whole training set; 0: none.
      whole_networks: number of these.
      expert_epochs: of the network that labels random images beside soft labels.

    Returns:
      The accuracies and scores; `print` shows them as a table.

    Raises:
      InputError: data of other classes or shapes than the set, an unknown name, labels
        that the protocol cannot read; no `model` for a set made with a network of your own.
    """
    if not isinstance(artefact, io.Artefact):
        raise InputError(
            f"artefact is a {type(artefact).__name__}; read a file with distilljax.load, "
            "or give the artefact of what distil returned"
        )
    loaded = choices.dataset(data)
    shape = tuple(artefact.distilled.images.shape[1:])
    if len(artefact.class_names) != loaded.num_classes or shape != loaded.image_shape:
        raise InputError(
            f"the set has images {list(shape)} of {len(artefact.class_names)} classes, the "
            f"data {loaded.name} {list(loaded.image_shape)} of {loaded.num_classes}; give "
            "the data that it was made of"
        )
    _check_classes(artefact, loaded)
    chosen = choices.model(
        _own_model(artefact) if model is None else model,
        loaded.image_shape,
        loaded.num_classes,
    )
    how = artefact.protocol if protocol is None else choices.protocol(protocol)[1]
    root = keys.as_key(key)
    num = len(artefact.distilled.images) // loaded.num_classes
    ipc = artefact.config.get("ipc", num)
    return measure(
        Tested(artefact, loaded, chosen.made, how, labels, None, None, ipc),
        Trained(networks, baselines, scores, whole_epochs, whole_networks, expert_epochs),
        keys.fresh(root),
        keys.expert(root),
        keys.seed_of(root),
    )


def _check_classes(artefact: io.Artefact, loaded: Dataset) -> None:
    """Refuses data whose classes have other names; numbers stand for any.

    Raises:
      InputError: they have.
    """
    named = artefact.class_names, loaded.class_names
    numbers = tuple(map(str, range(loaded.num_classes)))
    same = artefact.dataset.get("fingerprint") == loaded.fingerprint
    if named[0] != named[1] and numbers not in named and not same:
        raise InputError(
            f"the set is of the classes {named[0][0]}, ..., the data {loaded.name} of "
            f"{named[1][0]}, ...; give the data that it was made of"
        )


def _own_model(artefact: io.Artefact) -> Config:
    """Returns the settings of the network that an artefact names."""
    name: Any = artefact.config.get("model")
    if name not in MODELS:
        raise InputError(
            f"the artefact names the network {name!r}, which is none of "
            f"{', '.join(MODELS)}; give the model"
        )
    return MODELS[name].Config.from_dict(artefact.config.get(name, {}))
