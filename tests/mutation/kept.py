"""Keeps what the tests of a file do until a file changes that they may depend on."""

import hashlib
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Iterable

from tests.mutation.copies import files
from tests.mutation.runs import Measured

_FOREIGN_TO_TESTS = (".github/", "tests/mutation/", "tests/campaigns/")


class Kept:
    """Measurements in a folder, a file each, of tests as they are now."""

    def __init__(self, root: pathlib.Path, folder: pathlib.Path, tests: Iterable[str]):
        """Reads the repository under `root`, but for prose and other files of tests."""
        self._folder = folder
        ours = hashlib.sha256(sys.version.encode())
        ours.update(importlib.metadata.version("jax").encode())
        for name in files(root):
            test = name.startswith("tests/") and "/test_" in name
            if not (test or name.startswith(_FOREIGN_TO_TESTS) or name.endswith(".md")):
                ours.update(name.encode() + b"\0" + (root / name).read_bytes())
        self._identity = {
            test: hashlib.sha256(ours.digest() + (root / test).read_bytes()).hexdigest()
            for test in tests
        }

    def get(self, test: str) -> Measured | None:
        """Returns what is kept of a file of tests; None if anything has changed."""
        try:
            held = json.loads(self._place(test).read_text())
        except (OSError, ValueError):
            return None
        same = held.pop("identity", None) == self._identity[test]
        return Measured.from_json(held) if same else None

    def put(self, test: str, measured: Measured) -> None:
        """Keeps what the tests of a file do."""
        self._folder.mkdir(exist_ok=True)
        held = measured._asdict() | {"identity": self._identity[test]}
        self._place(test).write_text(json.dumps(held))

    def _place(self, test: str) -> pathlib.Path:
        return self._folder / f"{test.replace('/', '.')}.json"
