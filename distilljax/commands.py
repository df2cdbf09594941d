"""The command `distilljax NAME --option=value ...`: the experiments without a clone.

The wheel holds the experiments in `distilljax/experiments`; in a clone they lie beside the
package. They are loaded from there by their path, as the package `experiments`, so that a
folder of that name in the working directory shadows nothing.
"""

import difflib
import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from distilljax import flags

_EXTRA = "matplotlib pillow rich"


def folder() -> pathlib.Path | None:
    """Returns the folder of the experiments; None where they were not installed."""
    package = pathlib.Path(__file__).parent
    for place in (package / "experiments", package.parent / "experiments"):
        if (place / "lab" / "start.py").exists():
            return place
    return None


def names(place: pathlib.Path) -> list[str]:
    """Returns the commands in the folder of the experiments."""
    return sorted(path.parent.name for path in place.glob("*/__main__.py"))


def load(place: pathlib.Path) -> None:
    """Imports the package `experiments` from its folder, whatever else has that name."""
    spec = importlib.util.spec_from_file_location(
        "experiments", place / "__init__.py", submodule_search_locations=[str(place)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules["experiments"] = module
    spec.loader.exec_module(module)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command of the experiments.

    Args:
      argv: name and options; None for those of the process.

    Raises:
      SystemExit: there is no such command, or a package is absent; and what the command
        itself raises.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    place = folder()
    if place is None:
        _refuse("the experiments are not installed beside distilljax; install its wheel")
    known = names(place)
    if not words or words[0] in ("-h", "--help"):
        print("usage: distilljax COMMAND [--option=value ...]\n\ncommands:")
        for name in known:
            print(f"  {name:<20} {_summary(place / name / 'run.py')}")
        print(
            "\nTo begin: distilljax distill, which needs no options."
            "\ndistilljax COMMAND --help lists the options of a command."
        )
        return
    name, *options = words
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        _refuse(f"there is no command {name!r}; {hint}")
    load(place)
    flags.by_command = True
    sys.argv = [f"distilljax {name}", *options]
    try:
        start = importlib.import_module("experiments.lab.start")
        start.command(name)
    except ModuleNotFoundError as error:
        if error.name not in ("matplotlib", "PIL", "rich"):
            raise
        _refuse(f"distilljax {name} needs {error.name}; pip install {_EXTRA}")


def _summary(path: pathlib.Path) -> str:
    """Returns the first line of a module's docstring, without importing it."""
    if not path.exists():
        return ""
    return path.read_text(encoding="utf-8").lstrip('r"').partition("\n")[0].rstrip('"')


def _refuse(text: str) -> NoReturn:
    print("error:", text, file=sys.stderr)
    sys.exit(2)
