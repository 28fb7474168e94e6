"""The certified problems of NIST through the hybrid optimiser."""

from typing import NamedTuple

import pytest
from nist import digits, problems

from xpcs_eqx.hybrid import default

ENOUGH = 4.0


class Outcome(NamedTuple):
    """Correct digits, and whether the fit said it converged."""

    parameters: float
    errors: float
    success: bool


@pytest.fixture(scope="module")
def table():
    rows = {}
    for problem in problems():
        found = default().fit((problem.x, problem.y), problem.function, problem.start2)
        rows[problem.name] = Outcome(
            digits(found.x, problem.certified),
            digits(found.perr, problem.certified_errors),
            found.success,
        )
        print(problem.name, *rows[problem.name])
    return rows


@pytest.mark.long
def test_from_the_second_start(table):
    assert not {name for name, row in table.items() if row.parameters < ENOUGH}


@pytest.mark.long
def test_success_is_true_exactly_where_it_is(table):
    for name, row in table.items():
        assert row.success == (row.parameters >= ENOUGH), name


@pytest.mark.long
def test_standard_errors(table):
    # Where the residuals of Lanczos1 are rounding, its errors are as well.
    for name, row in table.items():
        assert name == "Lanczos1" or row.errors >= ENOUGH, name


@pytest.mark.parametrize("name", ["Misra1a", "MGH09"])
def test_one_of_two_levels(name):
    problem = next(problem for problem in problems() if problem.name == name)
    found = default().fit((problem.x, problem.y), problem.function, problem.start2)
    assert found.success
    assert digits(found.x, problem.certified) >= ENOUGH
