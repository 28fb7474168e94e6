"""The 27 nonlinear regression problems of the NIST Statistical Reference Datasets.

The files in `nist_data/` are NIST's own (public domain, https://www.itl.nist.gov/div898/strd);
they carry data, two starts and values certified to 11 digits. Only the model functions are
written here, because the files give them as text.

Run as a program it prints how many digits SciPy reaches on each problem.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy.optimize import least_squares

FOLDER = Path(__file__).parent / "nist_data"
CERTIFIED_DIGITS = 11

Vector = Float[np.ndarray, " parameters"]
Function = Callable[..., Float[Array, " points"]]


class Problem(NamedTuple):
    """One certified regression problem; the dimensions are those of the file, all float64.

    - `function(x, *b)`: the model, with each parameter a scalar.
    - `x`: shape (points,), or (points, predictors) where there are several.
    - `y`: the response as the model predicts it (for Nelson the logarithm of the file's column).
    """

    name: str
    function: Function
    x: Float[np.ndarray, " points"] | Float[np.ndarray, "points predictors"]
    y: Float[np.ndarray, " points"]
    start1: Vector
    start2: Vector
    certified: Vector
    certified_errors: Vector
    residual_sum_of_squares: float
    difficulty: str

    def residual(self, b: Float[ArrayLike, " parameters"]) -> Float[Array, " points"]:
        """`function(x, *b) - y`, shape (points,)."""
        return self.function(self.x, *jnp.asarray(b)) - self.y


def _saturation(x, b1, b2):
    return -b1 * jnp.expm1(-b2 * x)


def _chwirut(x, b1, b2, b3):
    return jnp.exp(-b1 * x) / (b2 + b3 * x)


def _three_exponentials(x, b1, b2, b3, b4, b5, b6):
    return b1 * jnp.exp(-b2 * x) + b3 * jnp.exp(-b4 * x) + b5 * jnp.exp(-b6 * x)


def _two_peaks(x, b1, b2, b3, b4, b5, b6, b7, b8):
    first = b3 * jnp.exp(-(((x - b4) / b5) ** 2))
    second = b6 * jnp.exp(-(((x - b7) / b8) ** 2))
    return b1 * jnp.exp(-b2 * x) + first + second


def _cubic_ratio(x, b1, b2, b3, b4, b5, b6, b7):
    return (b1 + x * (b2 + x * (b3 + x * b4))) / (1 + x * (b5 + x * (b6 + x * b7)))


def _quadratic_ratio(x, b1, b2, b3, b4, b5):
    return (b1 + x * (b2 + x * b3)) / (1 + x * (b4 + x * b5))


def _enso(x, b1, b2, b3, b4, b5, b6, b7, b8, b9):
    def wave(period, cosine, sine):
        phase = 2 * jnp.pi * x / period
        return cosine * jnp.cos(phase) + sine * jnp.sin(phase)

    return b1 + wave(12.0, b2, b3) + wave(b4, b5, b6) + wave(b7, b8, b9)


def _eckerle4(x, b1, b2, b3):
    return b1 / b2 * jnp.exp(-0.5 * ((x - b3) / b2) ** 2)


def _mgh09(x, b1, b2, b3, b4):
    return b1 * x * (x + b2) / (x * (x + b3) + b4)


def _mgh17(x, b1, b2, b3, b4, b5):
    return b1 + b2 * jnp.exp(-b4 * x) + b3 * jnp.exp(-b5 * x)


def _rat43(x, b1, b2, b3, b4):
    # softplus instead of log(1 + exp): the exponent overflows on a long trial step
    return b1 * jnp.exp(-jax.nn.softplus(b2 - b3 * x) / b4)


def _roszman1(x, b1, b2, b3, b4):
    return b1 - b2 * x - jnp.arctan(b3 / (x - b4)) / jnp.pi


FUNCTIONS: dict[str, Function] = {
    "Bennett5": lambda x, b1, b2, b3: b1 * (b2 + x) ** (-1 / b3),
    "BoxBOD": _saturation,
    "Chwirut1": _chwirut,
    "Chwirut2": _chwirut,
    "DanWood": lambda x, b1, b2: b1 * x**b2,
    "ENSO": _enso,
    "Eckerle4": _eckerle4,
    "Gauss1": _two_peaks,
    "Gauss2": _two_peaks,
    "Gauss3": _two_peaks,
    "Hahn1": _cubic_ratio,
    "Kirby2": _quadratic_ratio,
    "Lanczos1": _three_exponentials,
    "Lanczos2": _three_exponentials,
    "Lanczos3": _three_exponentials,
    "MGH09": _mgh09,
    "MGH10": lambda x, b1, b2, b3: b1 * jnp.exp(b2 / (x + b3)),
    "MGH17": _mgh17,
    "Misra1a": _saturation,
    "Misra1b": lambda x, b1, b2: b1 * (1 - (1 + b2 * x / 2) ** -2),
    "Misra1c": lambda x, b1, b2: b1 * (1 - (1 + 2 * b2 * x) ** -0.5),
    "Misra1d": lambda x, b1, b2: b1 * b2 * x / (1 + b2 * x),
    "Nelson": lambda x, b1, b2, b3: b1 - b2 * x[:, 0] * jnp.exp(-b3 * x[:, 1]),
    "Rat42": lambda x, b1, b2, b3: b1 * jax.nn.sigmoid(b3 * x - b2),
    "Rat43": _rat43,
    "Roszman1": _roszman1,
    "Thurber": _cubic_ratio,
}


def _match(pattern: str, text: str, path: Path) -> str:
    found = re.search(pattern, text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"{path}: nothing matches {pattern!r}; restore the file from NIST's.")
    return found.group(1)


def _read(path: Path) -> Problem:
    text = path.read_text(encoding="ascii")
    rows = re.findall(r"^\s*b\d+\s*=((?:\s+[-+.\dE]+){4})\s*$", text, re.MULTILINE | re.IGNORECASE)
    start1, start2, certified, errors = np.array([row.split() for row in rows], dtype=float).T
    count = int(_match(r"Number of Observations:\s+(\d+)", text, path))
    first = int(_match(r"Data\s+\(lines\s+(\d+)\s+to", text, path))
    table = np.loadtxt(text.splitlines()[first - 1 :], ndmin=2)
    if len(table) != count:
        raise ValueError(f"{path}: {len(table)} rows of data, but the header says {count}.")
    y, x = table[:, 0], table[:, 1:]
    return Problem(
        name=path.stem,
        function=FUNCTIONS[path.stem],
        x=x[:, 0] if x.shape[1] == 1 else x,
        y=np.log(y) if re.search(r"^\s*log\[y\]\s*=", text, re.MULTILINE) else y,
        start1=start1,
        start2=start2,
        certified=certified,
        certified_errors=errors,
        residual_sum_of_squares=float(_match(r"Residual Sum of Squares:\s+(\S+)", text, path)),
        difficulty=_match(r"(Lower|Average|Higher) Level of Difficulty", text, path).lower(),
    )


def problems() -> tuple[Problem, ...]:
    """All 27 problems in alphabetical order, read from `nist_data/`; `ValueError` if one is cut."""
    return tuple(_read(FOLDER / f"{name}.dat") for name in FUNCTIONS)


def digits(estimate: Float[ArrayLike, " n"], certified: Float[ArrayLike, " n"]) -> float:
    """Correct digits of the worst entry (log relative error), between 0 and the 11 certified."""
    relative = np.abs(np.asarray(estimate) - np.asarray(certified)) / np.abs(np.asarray(certified))
    worst = np.max(relative)
    if not worst < 1:  # also where the estimate is not a number
        return 0.0
    return float(-np.log10(np.maximum(worst, 10.0**-CERTIFIED_DIGITS)))


def scipy_digits(problem: Problem, start: Vector) -> float:
    """Digits that MINPACK's Levenberg-Marquardt reaches from `start` with the exact Jacobian."""
    residual = jax.jit(problem.residual)
    jacobian = jax.jit(jax.jacfwd(problem.residual))
    solution = least_squares(
        lambda b: np.asarray(residual(b)),
        start,
        jac=lambda b: np.asarray(jacobian(b)),
        method="lm",
        x_scale="jac",
        ftol=1e-15,
        xtol=1e-15,
        gtol=1e-15,
        max_nfev=10_000,
    )
    return digits(solution.x, problem.certified)


if __name__ == "__main__":
    with jax.enable_x64(True):
        table = {p.name: [scipy_digits(p, p.start1), scipy_digits(p, p.start2)] for p in problems()}
    for name, (first, second) in table.items():
        print(f"{name:10s} start 1: {first:5.1f}   start 2: {second:5.1f}")
    solved = np.sum(np.array(list(table.values())) >= 6, axis=0)
    print(f"six digits or more: start 1 {solved[0]}, start 2 {solved[1]} of {len(table)}")
