"""Write an artefact in the layout of another program.

    python -m experiments.export_set --artefact=set/distilled.npz --layout=dc --out=set.pt
    python -m experiments.export_set --artefact=set/distilled.npz --layout=png --out=DIR

Layouts: see `distilljax.io.foreign`. None holds the preprocessing: the images are written
as networks see them; only `--layout=png` inverts the preprocessing, with values clipped to
0..255 and rounded. Directly to PyTorch: `distilljax.io.foreign.to_torch(artefact)`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from distilljax import data, io, launch
from distilljax.config import Config as Base
from distilljax.config import FieldError, option
from distilljax.io import foreign
from distilljax.io.foreign import exports
from distilljax.types import InputError
from experiments.lab.options import expand
from experiments.lab.sets import file_of, load

NAME = "experiments.export_set"


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """Options of the command."""

    artefact: str = option("", "The distilled set (.npz).")
    layout: str = option("", f"Layout: {', '.join(foreign.EXPORTS)}.")
    out: str = option("", "New file; of the layouts mtt and png a new folder.")
    data_dir: str | None = option(None, "Folder of prepared TFDS sets; none: TFDS's own.")


def run(config: Config) -> pathlib.Path:
    """Writes the set; returns where it is.

    Raises:
      InputError: an artefact, a layout or a place that cannot be used; nothing is written.
    """
    if not config.artefact:
        raise FieldError("artefact", "", "name a distilled set, such as distilled.npz")
    if config.layout not in foreign.EXPORTS:
        reason = f"choose one of {', '.join(foreign.EXPORTS)}"
        raise FieldError("layout", config.layout, reason)
    if not config.out:
        raise FieldError("out", "", "name a new file or folder")
    out = pathlib.Path(config.out).expanduser()
    if out.exists():
        raise FieldError("out", config.out, "is there already; name a new file or folder")
    artefact = load(file_of(expand(config.artefact)), config.data_dir)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        foreign.export(artefact, out, layout=config.layout)
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror})") from None
    _show(config, artefact, out)
    return out


def _show(config: Config, artefact: io.Artefact, out: pathlib.Path) -> None:
    num = artefact.distilled.images.shape[0]
    kind, _ = data.to_arrays(artefact.transform)
    how = f"as networks see them, preprocessing {kind}, which the layout does not hold"
    if config.layout == "png":
        how = f"without their preprocessing ({kind}), clipped to 0..255 and rounded"
    print(f"{num} images are in {out}, {how}")
    if config.layout == "png" and exports.folder_names(artefact) != artefact.class_names:
        print("its folders are class numbers: the class names cannot be names of folders")
    if config.layout == "mtt":
        labels = "class numbers" if exports.are_hard(artefact) else "logits"
        print(f"labels_best.pt holds {labels}, lr_best.pt the inner learning rate")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    launch.main(Config, run, module=NAME, summary=__doc__, argv=argv)
