"""`[global]` as a strategy: what reaches it, and what is refused before a fit."""

import pytest
from helpers_program import prepared

from xpcs_eqx.config import read_configuration
from xpcs_eqx.config.build import build
from xpcs_eqx.search import Auto, CmaEs, MultiStart


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("searched"), n=9)


@pytest.fixture
def problem(folder):
    """The problem of the configuration with changes."""

    def changed(*options):
        return build(read_configuration(str(folder / "fit.toml"), options))

    return changed


def test_the_seed_reaches_every_part_of_a_search(problem):
    seeded = "global.seed=7"
    multi = problem('global.method="multi_start"', seeded).search
    assert isinstance(multi, MultiStart)
    assert multi.settings(4)["seed"] == 7
    pytest.importorskip("cma")
    cma = problem('global.method="cma_es"', seeded).search
    assert isinstance(cma, CmaEs)
    assert cma.seed == 7
    auto = problem('global.method="auto"', seeded).search
    assert isinstance(auto, Auto)
    # CMA-ES takes the seed of auto, multi-starts add it to their own.
    assert auto.seed == auto.multi.settings(4, auto.seed)["seed"] == 7
