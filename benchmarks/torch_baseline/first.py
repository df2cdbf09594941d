"""One outer step in plain PyTorch, from the start of a process.

    python -m benchmarks.torch_baseline.first FILE METHOD

The file is a pickle of the arrays of `benchmarks.cases`, which `benchmarks.start` writes.
"""

import pathlib
import pickle
import sys

from benchmarks.torch_baseline.given import Given
from benchmarks.torch_baseline.works import WORKS


def main(file: str, method: str) -> None:
    """Takes an outer step of a method and prints its loss."""
    given = pickle.loads(pathlib.Path(file).read_bytes())
    print(WORKS[method](Given(given, "cpu"))()["loss"])


if __name__ == "__main__":
    main(*sys.argv[1:])
