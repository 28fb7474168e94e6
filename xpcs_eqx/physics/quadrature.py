"""Integrals of functions that have no closed antiderivative, on the frame grid."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def cumulative_gauss(
    function: Callable[[Float[Array, "point"]], Float[Array, "point"]],
    t: Float[Array, "frame"],
    points: int = 3,
    panels: int = 1,
) -> Float[Array, "frame"]:
    """∫ function dt from t[0] to each frame, by Gauss–Legendre quadrature between frames.

    Each gap between frames is cut into `panels` equal parts with `points` nodes each: exact for
    polynomials of degree 2·points − 1. The function is never evaluated at a frame itself.
    """
    nodes, weights = np.polynomial.legendre.leggauss(points)
    # Nodes and weights of all panels on the unit interval.
    places = ((np.arange(panels)[:, None] + 0.5 * (nodes + 1)) / panels).ravel()
    shares = np.tile(0.5 * weights / panels, panels)
    gaps = jnp.diff(t)
    inside = t[:-1, None] + gaps[:, None] * places
    values = function(inside.ravel()).reshape(inside.shape)
    steps = gaps * (values @ jnp.asarray(shares, dtype=values.dtype))
    return jnp.concatenate([jnp.zeros_like(t, shape=(1,)), jnp.cumsum(steps)])
