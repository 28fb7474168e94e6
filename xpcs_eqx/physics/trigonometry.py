"""Sine and cosine together, and sin(x)/x, vectorised and exact near zero.

The library sine of a CPU is called entry by entry; a map has millions of entries, so the sine is
written here as a short polynomial after a two-term reduction of the argument, which a compiler
turns into vector instructions. Beyond |x| = 1e6 the reduction loses digits, and a phase that large
turns by more than π from frame to frame: it is taken as unknown, with the means of sine and cosine,
zero. sin(x)/x is below 1e-6 there and its square, which enters correlations, below 1e-12.
"""

from math import factorial, pi

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# π/2 in two terms, the first with 33 leading bits, so that its product with k is exact.
_HALF_PI = 1.57079632673412561417
_HALF_PI_REST = 6.07710050650619224932e-11
# The same split for single precision: 11 leading bits, then the rest in two terms.
_HALF_PI_32 = (1.5703125, 4.837512969970703e-4, 7.549789948768648e-8)

# Taylor coefficients; on |x| <= π/4 the first neglected term is below 5e-17.
_SIN = tuple((-1) ** m / factorial(2 * m + 1) for m in range(9))
_COS = tuple((-1) ** m / factorial(2 * m) for m in range(9))
# The series of sin(x)/x and of its derivative over x, on |x| <= 1/2.
_SINC = _SIN[:8]
_SLOPE = tuple(2 * m * (-1) ** m / factorial(2 * m + 1) for m in range(1, 9))
# Phases beyond this are unknown.
_LARGEST = 1e6
# Below this argument sin(x)/x and its derivatives come from the series.
_SWITCH = 0.5


def _polynomial(z, coefficients):
    total = jnp.full_like(z, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * z + coefficient
    return total


@jax.custom_jvp
def sincos(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """sin x and cos x [x in rad], to rounding for |x| up to 1e6 (float64); both 0 beyond it."""
    k = jnp.round(x * (2 / pi))
    if x.dtype == jnp.float64:
        r = (x - k * _HALF_PI) - k * _HALF_PI_REST
    else:
        r = x
        for part in _HALF_PI_32:
            r = r - k * part
    z = r * r
    s = r * _polynomial(z, _SIN)
    c = _polynomial(z, _COS)
    quadrant = k - 4 * jnp.floor(k * 0.25)
    swap = (quadrant == 1) | (quadrant == 3)
    sine = jnp.where(swap, c, s)
    cosine = jnp.where(swap, s, c)
    sine = jnp.where(quadrant >= 2, -sine, sine)
    cosine = jnp.where((quadrant == 1) | (quadrant == 2), -cosine, cosine)
    unknown = jnp.abs(x) > _LARGEST
    return jnp.where(unknown, 0.0, sine), jnp.where(unknown, 0.0, cosine)


@sincos.defjvp
def _(primals, tangents):
    sine, cosine = sincos(primals[0])
    return (sine, cosine), (cosine * tangents[0], -sine * tangents[0])


def _slope(x, value, cosine):
    """Derivative of sin(x)/x from its value and cos x; by the series near zero."""
    small = jnp.abs(x) < _SWITCH
    inner = jnp.where(small, x, 0.0)
    outer = jnp.where(small, 1.0, x)
    series = inner * _polynomial(inner * inner, _SLOPE)
    return jnp.where(small, series, (cosine - value) / outer)


@jax.custom_jvp
def sinc(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sin(x)/x [x in rad]; exact, with all derivatives, through x = 0."""
    return _sinc_and_cosine(x)[0]


def _sinc_and_cosine(x):
    small = jnp.abs(x) < _SWITCH
    # Each branch sees an argument that is safe for it: a NaN in the branch not taken would
    # otherwise reach the gradient.
    inner = jnp.where(small, x, 0.0)
    outer = jnp.where(small, 1.0, x)
    sine, cosine = sincos(outer)
    return jnp.where(small, _polynomial(inner * inner, _SINC), sine / outer), cosine


@sinc.defjvp
def _(primals, tangents):
    (x,) = primals
    value, cosine = _sinc_and_cosine(x)
    return value, _slope(x, value, cosine) * tangents[0]


def cos_degrees(angle: Float[Array, "..."]) -> Float[Array, "..."]:
    """cos of an angle [degrees], exactly 0 at ±90: no flow crosses a direction at right angles.

    The cosine of the nearest float to π/2 is 6e-17, which a diverging phase would make anything.
    """
    turned = angle - 360 * jnp.round(angle / 360)
    along = jnp.cos(jnp.deg2rad(turned))
    across = jnp.sin(jnp.deg2rad(90 - jnp.abs(turned)))
    return jnp.where(jnp.abs(turned) < 45, along, across)
