"""Hessian, Gauss-Newton matrix, NTK and influence functions, as pure functions."""

from distilljax import lazy

__getattr__, __dir__ = lazy.submodules(
    __name__, ("estimators", "hessian", "influence", "kernels", "ntk")
)
