"""Parameters in their two forms, and scaling by angle, compiled once for all layers."""

import jax.numpy as jnp

from ..compiling import quick_jit


@quick_jit
def coordinates_of(variables, x):
    """Coordinates of physical variables."""
    return variables.to_coordinates(x)


@quick_jit
def physical_of(variables, y):
    """Physical variables of coordinates, inside their bounds."""
    return jnp.clip(variables.to_physical(y), variables.lower, variables.upper)


@quick_jit
def per_angle_of(scaling, coefficients):
    """(contrast, offset) by angle of scaling coefficients."""
    return scaling.per_angle(coefficients)
