"""A limit on the size of files (RLIMIT_FSIZE) is an error of the disk; nothing is lost."""

import errno
import json
import subprocess
import sys

import pytest

pytest.importorskip("resource")

SCRIPT = """
import json, pathlib, resource, sys

import numpy as np

from distilljax.disk.files import write_json
from distilljax.io import records
from distilljax.io.checkpoints import Checkpoints
from experiments.lab import kept

folder = pathlib.Path(sys.argv[1])
write_json(folder / "a.json", {"old": 1})
kept.write_arrays(folder / "b.npz", "old", x=np.zeros(2))
checkpoints = Checkpoints(folder / "checkpoints")
checkpoints.save(1, {"x": np.zeros(10, np.float32)})
checkpoints._manager.wait_until_finished()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))


def save():
    x = np.random.default_rng(0).random(100_000, np.float32)  # does not compress
    checkpoints.save(2, {"x": x})
    checkpoints.close()


found = []
for write in (
    lambda: write_json(folder / "a.json", {"new": "x" * 30_000}),
    lambda: kept.write_arrays(folder / "b.npz", "new", x=np.zeros(10_000)),
    lambda: records.append(folder / "c.jsonl", [{"x": i} for i in range(10_000)]),
    save,
):
    try:
        write()
        found.append(None)
    except OSError as error:
        found.append(error.errno)
print(json.dumps(found))
"""


def test_files_above_the_limit_are_errors_of_the_disk(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [errno.EFBIG] * 4
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.json",
        "b.npz",
        "c.jsonl",
        "checkpoints",
    ]
    assert (tmp_path / "checkpoints" / "1").is_dir()
    assert not (tmp_path / "checkpoints" / "2").exists()
