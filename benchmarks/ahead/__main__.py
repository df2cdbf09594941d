"""The command."""

from benchmarks import ahead, harness
from benchmarks.ahead import targets

if __name__ == "__main__":
    targets.prepare()
    harness.main(ahead.Config, ahead.run)
