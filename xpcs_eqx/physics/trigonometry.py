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

# π in two terms, the first with 33 leading bits, so that its product with k is exact.
_PI = 3.14159265346825122833
_PI_REST = 1.21542010130123840e-10
# The same split for single precision: 11 leading bits, then the rest in two terms.
_PI_32 = (3.140625, 9.67502593994140625e-4, 1.509957990978376e-7)

# Taylor coefficients; on |x| <= π/2 the first neglected terms are below 2e-17.
_SIN = tuple((-1) ** m / factorial(2 * m + 1) for m in range(11))
_COS = tuple((-1) ** m / factorial(2 * m) for m in range(11))
# The series of the derivative of sin(x)/x over x, on |x| <= 1/2.
_SLOPE = tuple(2 * m * (-1) ** m / factorial(2 * m + 1) for m in range(1, 9))
# Of these, as many as single precision takes.
_TERMS_32 = 7
# Phases beyond this are unknown.
_LARGEST = 1e6
# Below this argument the derivatives of sin(x)/x come from the series.
_SWITCH = 0.5


def _polynomial(z, coefficients):
    if z.dtype == jnp.float32:
        coefficients = coefficients[:_TERMS_32]
    total = jnp.full_like(z, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * z + coefficient
    return total


def _reduced(x):
    """x less its nearest multiple of π, and the sign that sine and cosine take from that."""
    k = jnp.round(x * (1 / pi))
    if x.dtype == jnp.float64:
        r = (x - k * _PI) - k * _PI_REST
    else:
        r = x
        for part in _PI_32:
            r = r - k * part
    odd = k - 2 * jnp.floor(k * 0.5)
    unknown = jnp.abs(x) > _LARGEST
    return jnp.where(unknown, 0.0, r), jnp.where(unknown, 0.0, 1 - 2 * odd)


@jax.custom_jvp
def sincos(x: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """sin x and cos x [x in rad], to rounding for |x| up to 1e6 (float64); both 0 beyond it."""
    # By π rather than π/2, where one would have to be swapped with the other: what needs but one
    # of the two makes but one.
    r, sign = _reduced(x)
    z = r * r
    return sign * (r * _polynomial(z, _SIN)), sign * _polynomial(z, _COS)


@sincos.defjvp
def _(primals, tangents):
    sine, cosine = sincos(primals[0])
    return (sine, cosine), (cosine * tangents[0], -sine * tangents[0])


def _slope(x, value, cosine):
    """Derivative of sin(x)/x from its value and cos x; by the series near zero."""
    small = jnp.abs(x) < _SWITCH
    # Each branch sees an argument that is safe for it: a NaN in the branch not taken would
    # otherwise reach the gradient.
    inner = jnp.where(small, x, 0.0)
    outer = jnp.where(small, 1.0, x)
    series = inner * _polynomial(inner * inner, _SLOPE)
    # The division comes last, here and below: XLA makes anything cheaper again for each of the many
    # sums that a fit forms of it, the whole series among them.
    return jnp.where(small, series, cosine - value) / outer


@jax.custom_jvp
def sinc(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """sin(x)/x [x in rad]; exact, with all derivatives, through x = 0."""
    zero = x == 0
    return jnp.where(zero, 1.0, sincos(x)[0]) / jnp.where(zero, 1.0, x)


@sinc.defjvp
def _(primals, tangents):
    (x,) = primals
    # By itself again: near zero its quotient is exact, and the derivatives of that are not.
    value = sinc(x)
    return value, _slope(x, value, sincos(x)[1]) * tangents[0]


def cos_degrees(angle: Float[Array, "..."]) -> Float[Array, "..."]:
    """cos of an angle [degrees], exactly 0 at ±90: no flow crosses a direction at right angles.

    The cosine of the nearest float to π/2 is 6e-17, which a diverging phase would make anything.
    """
    turned = angle - 360 * jnp.round(angle / 360)
    along = jnp.cos(jnp.deg2rad(turned))
    across = jnp.sin(jnp.deg2rad(90 - jnp.abs(turned)))
    return jnp.where(jnp.abs(turned) < 45, along, across)
