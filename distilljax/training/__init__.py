"""Training on real and distilled sets: evaluation protocols, expert trajectories."""

from distilljax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, ("evaluation", "expert", "protocols"))
