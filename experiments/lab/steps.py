"""Steps of the study: the commands that each experiment contributes, and their settings."""

import hashlib
import json
import pathlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from distilljax import flags
from experiments.lab.workdir import PLACES

ScaleName = Literal["laptop", "night", "published", "paper"]
Flags = Mapping[str, Any]
# Flags that name files; their contents are `Step.inputs`.
INPUTS = ("artefacts", "artefact", "influence", "train_on", "records", "out")
NETWORK_WIDTH = 32  # default of `--convnet.width` in the experiments


class Step(NamedTuple):
    """A command of the study."""

    name: str  # also of its directory
    group: str  # a choice of `--steps`
    module: str
    flags: Flags
    inputs: tuple[pathlib.Path, ...]  # files of which a change means to run it again
    needs: tuple[str, ...]  # steps that come before
    output: pathlib.Path  # there is one once it is finished
    minutes: float  # about what it takes, for the time left
    last: bool = False  # it comes after all others, and is run every time

    def argv(self) -> list[str]:
        """Returns what follows `python -m module`."""
        return [f"--{name}={_spelt(value)}" for name, value in self.flags.items()]

    def command(self) -> str:
        """Returns the step as one would type it."""
        return shlex.join([*flags.program(self.module), *self.argv()])

    def identity(self) -> str:
        """Returns the SHA-256 of the command and of its inputs, but for where they lie."""
        said = {k: v for k, v in self.flags.items() if k not in (*PLACES, *INPUTS)}
        found = hashlib.sha256(json.dumps([self.module, said], sort_keys=True).encode())
        for path in self.inputs:
            found.update(hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()


def _spelt(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Kind(NamedTuple):
    """What sets share that one network can be shown, and that one network made."""

    preprocessing: str  # digest
    network: str  # digest of its description
    width: int | None  # of its ConvNet; None for other networks


class Study(NamedTuple):
    """A study that is planned: its scale, its folder and its distilled sets."""

    scale: ScaleName
    root: pathlib.Path
    dataset: str
    width: int  # of the network that sets are made with
    ipc: int  # images a class
    single_ipc: int  # images a class of the sets whose single images are left out
    data_dir: str | None
    sets: Mapping[str, pathlib.Path] = {}  # label -> the set looked at
    single: Mapping[str, pathlib.Path] = {}  # label -> the set that loses single images
    makers: Mapping[str, str] = {}  # path of a set -> the step that makes it
    kinds: Mapping[str, Kind] = {}  # path of a set -> its kind; absent: as all others
    images: Mapping[str, int] = {}  # path of a set -> its number of images; absent: unknown
    seed: int = 0  # of every step

    def step(
        self,
        name: str,
        group: str,
        flags: Flags,
        minutes: Mapping[str, float],
        *,
        experiment: str = "",
        sets: Sequence[pathlib.Path] = (),
        inputs: Sequence[pathlib.Path] = (),
        needs: Iterable[str] = (),
        folder: str = "",
    ) -> Step:
        """Returns a step of this study.

        Args:
          name: of the step.
          group: the choice of `--steps` that it belongs to.
          flags: of the command, without those of places.
          minutes: scale -> about what it takes.
          experiment: the command; the group if empty.
          sets: distilled sets that it reads; it needs the steps that make them.
          inputs: other files that it reads.
          needs: further steps that come before.
          folder: of the step, under that of the study; its name if empty.
        """
        places: dict[str, Any] = {"data_dir": self.data_dir} if self.data_dir else {}
        seed = {"seed": self.seed} if self.seed else {}
        workdir = places["workdir"] = self.root / (folder or name)
        made = [self.makers[str(path)] for path in sets if str(path) in self.makers]
        return Step(
            name,
            group,
            f"experiments.{experiment or group}",
            {**flags, **seed, **places},
            (*sets, *inputs),
            (*needs, *made),
            workdir / "summary.json",
            minutes.get(self.scale, 1.0),
        )

    def parts(
        self, sets: Mapping[str, pathlib.Path] | None = None
    ) -> Iterator[tuple[str, "Study"]]:
        """Yields a suffix for names of steps, and a study of the sets of each kind.

        Args:
          sets: label -> set; None: the sets looked at.
        """
        groups: dict[Kind | None, dict[str, pathlib.Path]] = {}
        for label, path in (self.sets if sets is None else sets).items():
            groups.setdefault(self.kinds.get(str(path)), {})[label] = path
        for number, (kind, of) in enumerate(groups.items(), 1):
            width = (kind and kind.width) or self.width
            yield f"_{number}" * (number > 1), self._replace(sets=of, width=width)

    def listed(self) -> Flags:
        """Returns the flag that names all sets looked at."""
        return {"artefacts": ",".join(map(str, self.sets.values()))}

    def network(self) -> Flags:
        """Returns the flag of the network's width, where it is not the default."""
        return {"convnet.width": self.width} if self.width != NETWORK_WIDTH else {}


class MadeSets(NamedTuple):
    """Steps that distil the sets of a study."""

    steps: Sequence[Step]
    sets: Mapping[str, pathlib.Path]
    single: Mapping[str, pathlib.Path]
