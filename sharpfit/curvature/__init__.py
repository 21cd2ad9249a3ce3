"""Hessian, Gauss-Newton and related operators of a module, a loss and data."""
