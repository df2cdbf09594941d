"""Second-order views of training: Hessian, Gauss-Newton, NTK, influence. Pure functions."""
