"""Distillation methods.

Each entry of `METHODS` is one module, a `MethodModule`: a docstring with the equation and
the departures from it, `Config`, `outer_loss`, `make`, `SOURCE` and `LOWER`.
"""

from typing import Any, Protocol

from distilljax.config import Config
from distilljax.core.augment import Augmentation
from distilljax.core.outer import Method, Optimizers, OuterLoss
from distilljax.core.parametrisations import DIRECT, Parametrisation
from distilljax.methods import bptt, dm, gm, tm
from distilljax.types import Model


class MethodModule(Protocol):
    """The interface of a method, an entry of `METHODS`."""

    @property
    def Config(self) -> type[Config]:
        """The settings."""

    @property
    def SOURCE(self) -> str:
        """The data of its step: `real`, a `RealSet`, or `experts`, `Trajectories`."""

    @property
    def LOWER(self) -> tuple[str, ...]:
        """The settings to lower when the outer loss diverges."""

    def outer_loss(
        self, config: Any, model: Model, augmentation: Augmentation | None = None
    ) -> OuterLoss:
        """Returns the outer loss, for a method that is built upon it."""

    def make(
        self,
        config: Any,
        model: Model,
        parametrisation: Parametrisation = DIRECT,
        *,
        optimizers: Optimizers | None = None,
        augmentation: Augmentation | None = None,
    ) -> Method:
        """Returns the method."""


METHODS: dict[str, MethodModule] = {"bptt": bptt, "gm": gm, "dm": dm, "tm": tm}

__all__ = ["METHODS", "MethodModule", "bptt", "dm", "gm", "tm"]
