"""Fits as differentiable functions: the implicit function theorem at the optimum."""
