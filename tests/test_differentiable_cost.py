"""What derivatives of fits and batched fits cost, measured as the benchmark does."""

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import differentiable

    yield differentiable
    for name in ("differentiable", "common"):
        sys.modules.pop(name, None)


def test_64_data_sets_at_once(benchmark):
    found = benchmark.batched(64, 21, 3)
    print(found)
    assert found["difference"] < 1e-8
    assert found["loop"] > 5 * found["vmap"]


def test_a_derivative_costs_five_evaluations(benchmark):
    seconds = benchmark.derivatives(301, 15)
    print(seconds)
    for mode in ("jvp", "vjp"):
        assert seconds["curvature"] + seconds[mode] < 5 * seconds["evaluation"]
