"""What a distilled set is worth: accuracies beside real images, and the scores of both."""

from distilljax import lazy

__getattr__, __dir__ = lazy.submodules(__name__, ("accuracy", "fair", "real"))
