"""The NIST problems agree with their own certificates, so that a failing solver is to blame."""

from typing import NamedTuple

import jax
import numpy as np
import pytest
from nist import FOLDER, Problem, digits, problems, scipy_digits

PROBLEMS = problems()


class Certificate(NamedTuple):
    """A problem with its residual and Jacobian at the certified parameters.

    `rounding` is the most that |J db| can be when the certified parameters are printed with 11
    digits. For Lanczos1 it is larger than the residual itself (4e-13), which therefore no
    evaluation at the printed parameters can reproduce; for the others it is far below.
    """

    problem: Problem
    residual: np.ndarray
    jacobian: np.ndarray
    rounding: float


@pytest.fixture(scope="module", params=PROBLEMS, ids=lambda problem: problem.name)
def certificate(request) -> Certificate:
    problem = request.param

    @jax.jit
    def evaluate(b):
        return problem.residual(b), jax.jacfwd(problem.residual)(b)

    residual, jacobian = (np.asarray(value) for value in evaluate(problem.certified))
    half_unit = 0.5 * 10.0 ** (np.floor(np.log10(np.abs(problem.certified))) - 10)
    rounding = float(np.linalg.norm(np.abs(jacobian) @ half_unit))
    return Certificate(problem, residual, jacobian, rounding)


def test_all_problems_are_read():
    assert len(PROBLEMS) == 27
    assert {problem.name for problem in PROBLEMS} == {path.stem for path in FOLDER.glob("*.dat")}
    levels = [problem.difficulty for problem in PROBLEMS]
    assert (levels.count("lower"), levels.count("average"), levels.count("higher")) == (8, 11, 8)


def test_shapes(certificate):
    problem = certificate.problem
    points, parameters = problem.y.shape, problem.certified.shape
    assert len(points) == len(parameters) == 1
    assert len(problem.x) == len(problem.y)
    assert problem.start1.shape == problem.start2.shape == parameters
    assert problem.certified_errors.shape == parameters
    assert certificate.residual.shape == points


def test_residual_sum_of_squares(certificate):
    certified = certificate.problem.residual_sum_of_squares
    # the certificate is a minimum: the gradient vanishes there and rounding enters squared
    allowed = 1e-8 * certified + certificate.rounding**2
    assert abs(certificate.residual @ certificate.residual - certified) <= allowed


def test_gradient_vanishes(certificate):
    _, residual, jacobian, rounding = certificate
    allowed = 1e-6 * np.linalg.norm(residual) + rounding
    assert np.all(np.abs(jacobian.T @ residual) <= np.linalg.norm(jacobian, axis=0) * allowed)


def test_certified_errors(certificate):
    problem, _, jacobian, _ = certificate
    # unit columns: the parameters of one problem differ by up to nine orders of magnitude
    lengths = np.linalg.norm(jacobian, axis=0)
    triangle = np.linalg.qr(jacobian / lengths, mode="r")
    spread = np.linalg.norm(np.linalg.inv(triangle), axis=1) / lengths
    variance = problem.residual_sum_of_squares / (len(problem.y) - len(problem.certified))
    assert digits(spread * np.sqrt(variance), problem.certified_errors) > 6


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_starts_are_finite_and_differentiable(problem):
    cost = jax.value_and_grad(lambda b: (problem.residual(b) ** 2).sum())
    starts = np.stack([problem.start1, problem.start2])
    values, gradients = jax.jit(jax.vmap(cost))(starts)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(gradients))


def test_digits():
    certified = np.array([2.0, -4.0])
    assert digits(certified, certified) == 11
    assert digits(np.array([2.0, -4.0004]), certified) == pytest.approx(4)
    assert digits(np.array([2.0, 4.0]), certified) == 0
    assert digits(np.array([2.0, np.nan]), certified) == 0


def test_scipy_solves_an_easy_problem():
    easy = next(problem for problem in PROBLEMS if problem.name == "Misra1a")
    assert scipy_digits(easy, easy.start2) > 6
