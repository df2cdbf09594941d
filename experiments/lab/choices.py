"""Fields that `chooses` adds to a configuration, for type checkers.

A checker does not see what a class decorator adds. A configuration that chooses inherits
these classes besides: they are empty when the program runs, and the tables `METHODS`,
`MODELS` and `PARAMETRISATIONS` decide. An entry that is absent here works all the same;
only checkers do not know it.
"""

from typing import TYPE_CHECKING

from distilljax.config import Config, option

if TYPE_CHECKING:
    import dataclasses
    from typing import Literal

    from distilljax import methods, models
    from distilljax.core import parametrisations

    @dataclasses.dataclass(frozen=True)
    class MethodChoice(Config):
        """The method and its settings."""

        method: Literal["bptt", "gm", "dm", "tm", "kernel"] = "bptt"
        bptt: methods.bptt.Config = option(None, "")
        gm: methods.gm.Config = option(None, "")
        dm: methods.dm.Config = option(None, "")
        tm: methods.tm.Config = option(None, "")
        kernel: methods.kernel.Config = option(None, "")

    @dataclasses.dataclass(frozen=True)
    class ModelChoice(Config):
        """The network and its settings."""

        model: Literal["convnet", "mlp", "resnet", "alexnet", "vgg"] = "convnet"
        convnet: models.convnet.Config = option(None, "")
        mlp: models.mlp.Config = option(None, "")
        resnet: models.resnet.Config = option(None, "")
        alexnet: models.alexnet.Config = option(None, "")
        vgg: models.vgg.Config = option(None, "")

    @dataclasses.dataclass(frozen=True)
    class ParametrisationChoice(Config):
        """The parametrisation and its settings."""

        parametrisation: Literal["direct", "memory", "multi_formation"] = "direct"
        direct: parametrisations.direct.Config = option(None, "")
        memory: parametrisations.memory.Config = option(None, "")
        multi_formation: parametrisations.multi_formation.Config = option(None, "")

else:

    class MethodChoice(Config):
        """The method and its settings."""

    class ModelChoice(Config):
        """The network and its settings."""

    class ParametrisationChoice(Config):
        """The parametrisation and its settings."""
