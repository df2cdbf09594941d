"""Second-order views of training: Hessian, Gauss-Newton, NTK, influence. Pure functions."""

from distilljax import lazy

__getattr__, __dir__ = lazy.submodules(
    __name__, ("estimators", "hessian", "influence", "kernels", "ntk")
)
