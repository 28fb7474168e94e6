"""Nonlinear least-squares problems of Moré, Garbow and Hillstrom with their minima.

J. J. Moré, B. S. Garbow, K. E. Hillstrom, "Testing unconstrained optimization software", ACM TOMS 7
(1981) 17, numbers as there. A problem is a vector of residuals of its variables, a standard start
and Σ r² at its minimum; starts ten and a hundred times as far are part of the collection.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Vector = Float[np.ndarray, " variable"]


class Residuals(NamedTuple):
    """One problem.

    - `residuals(*x)`: the vector whose sum of squares is minimised, of length `count`.
    - `start`: the standard start.
    - `minimum`: Σ r² at the minimum; `others`: at other local minima, those at infinity included.
    """

    number: int
    name: str
    residuals: Callable[..., Float[Array, " residual"]]
    count: int
    start: Vector
    minimum: float
    others: tuple[float, ...] = ()

    def curve(self, x, *variables):
        """The residuals as a curve over the numbers of the residuals, for zeros as data."""
        del x
        return self.residuals(*variables)


def _rosenbrock(a, b):
    return jnp.stack([10 * (b - a**2), 1 - a])


def _freudenstein_roth(a, b):
    return jnp.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])


def _powell_badly_scaled(a, b):
    return jnp.stack([1e4 * a * b - 1, jnp.exp(-a) + jnp.exp(-b) - 1.0001])


def _brown_badly_scaled(a, b):
    return jnp.stack([a - 1e6, b - 2e-6, a * b - 2])


_POWERS = np.array([1.0, 2.0, 3.0])


def _beale(a, b):
    return np.array([1.5, 2.25, 2.625]) - a * (1 - b**_POWERS)


_TEN = np.arange(1.0, 11.0)


def _jennrich_sampson(a, b):
    return 2 + 2 * _TEN - (jnp.exp(_TEN * a) + jnp.exp(_TEN * b))


def _helical_valley(a, b, c):
    turns = jnp.arctan(b / a) / (2 * jnp.pi) + jnp.where(a < 0, 0.5, 0.0)
    return jnp.stack([10 * (c - 10 * turns), 10 * (jnp.sqrt(a**2 + b**2) - 1), c])


_BARD = np.array(
    [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
)


def _bard(a, b, c):
    u = np.arange(1.0, 16.0)
    v = 16 - u
    return _BARD - (a + u / (v * b + np.minimum(u, v) * c))


_GAUSSIAN = np.array(
    [9, 44, 175, 540, 1295, 2420, 3521, 3989, 3521, 2420, 1295, 540, 175, 44, 9]
) * 1e-4  # fmt: skip


def _gaussian(a, b, c):
    t = (8 - np.arange(1.0, 16.0)) / 2
    return a * jnp.exp(-b * (t - c) ** 2 / 2) - _GAUSSIAN


_MEYER = np.fromstring(
    """
    34780 28610 23650 19630 16370 13720 11540 9744 8261 7030 6005 5147 4427 3820 3307 2872
    """,
    sep=" ",
)


def _meyer(a, b, c):
    return a * jnp.exp(b / (45 + 5 * np.arange(1.0, 17.0) + c)) - _MEYER


def _box(a, b, c):
    t = 0.1 * _TEN
    return jnp.exp(-t * a) - jnp.exp(-t * b) - c * (np.exp(-t) - np.exp(-10 * t))


def _powell_singular(a, b, c, d):
    return jnp.stack(
        [a + 10 * b, np.sqrt(5.0) * (c - d), (b - 2 * c) ** 2, np.sqrt(10.0) * (a - d) ** 2]
    )


def _wood(a, b, c, d):
    return jnp.stack(
        [
            10 * (b - a**2),
            1 - a,
            np.sqrt(90.0) * (d - c**2),
            1 - c,
            np.sqrt(10.0) * (b + d - 2),
            (b - d) / np.sqrt(10.0),
        ]
    )


_KOWALIK = np.array(
    [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
)
_KOWALIK_U = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])


def _kowalik_osborne(a, b, c, d):
    u = _KOWALIK_U
    return _KOWALIK - a * (u**2 + u * b) / (u**2 + u * c + d)


def _brown_dennis(a, b, c, d):
    t = np.arange(1.0, 21.0) / 5
    return (a + t * b - np.exp(t)) ** 2 + (c + d * np.sin(t) - np.cos(t)) ** 2


_OSBORNE_1 = np.fromstring(
    """
    0.844 0.908 0.932 0.936 0.925 0.908 0.881 0.850 0.818 0.784 0.751 0.718 0.685 0.658 0.628
    0.603 0.580 0.558 0.538 0.522 0.506 0.490 0.478 0.467 0.457 0.448 0.438 0.431 0.424 0.420
    0.414 0.411 0.406
    """,
    sep=" ",
)


def _osborne_1(a, b, c, d, e):
    t = 10 * np.arange(33.0)
    return _OSBORNE_1 - (a + b * jnp.exp(-t * d) + c * jnp.exp(-t * e))


def _biggs(a, b, c, d, e, f):
    t = 0.1 * np.arange(1.0, 14.0)
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return c * jnp.exp(-t * a) - d * jnp.exp(-t * b) + f * jnp.exp(-t * e) - y


_OSBORNE_2 = np.fromstring(
    """
    1.366 1.191 1.112 1.013 0.991 0.885 0.831 0.847 0.786 0.725 0.746 0.679 0.608 0.655 0.616
    0.606 0.602 0.626 0.651 0.724 0.649 0.649 0.694 0.644 0.624 0.661 0.612 0.558 0.533 0.495
    0.500 0.423 0.395 0.375 0.372 0.391 0.396 0.405 0.428 0.429 0.523 0.562 0.607 0.653 0.672
    0.708 0.633 0.668 0.645 0.632 0.591 0.559 0.597 0.625 0.739 0.710 0.729 0.720 0.636 0.581
    0.428 0.292 0.162 0.098 0.054
    """,
    sep=" ",
)


def _osborne_2(*x):
    t = np.arange(65.0) / 10
    peaks = sum(x[k] * jnp.exp(-((t - x[k + 7]) ** 2) * x[k + 4]) for k in (1, 2, 3))
    return _OSBORNE_2 - (x[0] * jnp.exp(-t * x[4]) + peaks)


def _watson(*x):
    t = np.arange(1.0, 30.0) / 29
    slope = sum(j * x[j] * t ** (j - 1) for j in range(1, len(x)))
    value = sum(x[j] * t**j for j in range(len(x)))
    return jnp.concatenate([slope - value**2 - 1, jnp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def _problem(number, name, residuals, count, start, minimum, *others):
    return Residuals(number, name, residuals, count, np.array(start, float), minimum, others)


PROBLEMS = (
    _problem(1, "Rosenbrock", _rosenbrock, 2, (-1.2, 1), 0.0),
    _problem(2, "Freudenstein and Roth", _freudenstein_roth, 2, (0.5, -2), 0.0, 48.98425),
    _problem(3, "Powell badly scaled", _powell_badly_scaled, 2, (0, 1), 0.0),
    _problem(4, "Brown badly scaled", _brown_badly_scaled, 3, (1, 1), 0.0),
    _problem(5, "Beale", _beale, 3, (1, 1), 0.0),
    _problem(6, "Jennrich and Sampson", _jennrich_sampson, 10, (0.3, 0.4), 124.36218),
    _problem(7, "Helical valley", _helical_valley, 3, (-1, 0, 0), 0.0),
    _problem(8, "Bard", _bard, 15, (1, 1, 1), 8.214877e-3, 17.42869),
    _problem(9, "Gaussian", _gaussian, 15, (0.4, 1, 0), 1.12793e-8),
    _problem(10, "Meyer", _meyer, 16, (0.02, 4000, 250), 87.94586),
    _problem(12, "Box three-dimensional", _box, 10, (0, 10, 20), 0.0, 0.0755887),
    _problem(13, "Powell singular", _powell_singular, 4, (3, -1, 0, 1), 0.0),
    _problem(14, "Wood", _wood, 6, (-3, -1, -3, -1), 0.0),
    _problem(
        15, "Kowalik and Osborne", _kowalik_osborne, 11, (0.25, 0.39, 0.415, 0.39), 3.0750561e-4,
        1.0273426e-3,
    ),
    _problem(16, "Brown and Dennis", _brown_dennis, 20, (25, 5, -5, -1), 85822.2016),
    _problem(17, "Osborne 1", _osborne_1, 33, (0.5, 1.5, -1, 0.01, 0.02), 5.464895e-5),
    _problem(18, "Biggs EXP6", _biggs, 13, (1, 2, 1, 1, 1, 1), 0.0, 5.655650e-3),
    _problem(
        19, "Osborne 2", _osborne_2, 65,
        (1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5), 4.013774e-2,
    ),
    _problem(20, "Watson", _watson, 31, (0,) * 6, 2.287670e-3),
)  # fmt: skip
