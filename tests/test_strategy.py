"""The choice between memory, file and stream, as numbers."""

from pathlib import Path

import psutil
import pytest

import xpcs_eqx as xe
from xpcs_eqx.objective.drivers.strategy import VARIABLE, memory_fraction, total_memory

GB = 10**9


def choose(entries, **keywords):
    return xe.objective.choose_strategy(entries, 4, 57, total_memory_bytes=16 * GB, **keywords)


def test_data_that_fit_are_fitted_in_memory():
    found = choose(100_000_000)
    assert found.choice == "in_memory"
    assert (found.data, found.needed, found.threshold) == (400_000_000, 1_200_000_000, 12 * GB)
    # n·p·8·6.5: what the stored Jacobian of other programs would take.
    assert found.stored_jacobian == 296_400_000_000
    assert "1.2 GB" in found.reason
    assert "below the threshold 12 GB" in found.reason
    assert "a stored Jacobian would take 296 GB" in found.report()


@pytest.mark.parametrize(("entries", "choice"), [(1_000_000_000, "in_memory"),
                                                 (1_000_000_001, "out_of_core")])  # fmt: skip
def test_beyond_the_threshold_they_stay_in_their_file(entries, choice):
    assert choose(entries).choice == choice


def test_on_request():
    for choice in ("in_memory", "out_of_core", "hybrid"):
        found = choose(10**12, forced=choice)
        assert (found.choice, found.reason) == (choice, "asked for")
    with pytest.raises(xe.ConfigError, match="'disk' is unknown; known are in_memory, out_of_core"):
        choose(10, forced="disk")


@pytest.mark.parametrize(("text", "fraction"), [("0.5", 0.5), ("0.01", 0.1), ("5", 0.9)])
def test_fraction_from_the_environment(monkeypatch, text, fraction):
    monkeypatch.setenv(VARIABLE, text)
    assert memory_fraction() == fraction
    assert choose(10**9).threshold == int(fraction * 16 * GB)


@pytest.mark.parametrize("text", ["", "half", "nan", "inf", "0", "-0.3"])
def test_a_fraction_without_sense_is_refused(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(xe.ConfigError, match=f"{VARIABLE} is .*; give a fraction"):
        choose(10)


def test_memory_of_this_machine():
    machine = psutil.virtual_memory().total
    limits = [machine]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        file = Path("/sys/fs/cgroup") / name
        if file.exists() and file.read_text().strip().isdigit():
            limits.append(int(file.read_text()))
    # A group inside another may have a lower limit, and never a higher one.
    assert total_memory() <= min(limits)
    if not Path("/proc/self/cgroup").exists():
        assert total_memory() == machine
    assert xe.objective.choose_strategy(10, 8, 3).total == total_memory()


def test_without_control_groups_it_is_that_of_the_machine(monkeypatch):
    monkeypatch.setattr("xpcs_eqx.objective.drivers.strategy._container_limits", list)
    assert total_memory() == psutil.virtual_memory().total


@pytest.mark.parametrize(("asked", "taken"), [(0.99, 0.9), (2.0, 0.9), (0.01, 0.1), (0.5, 0.5)])
def test_a_fraction_is_kept_between_its_limits(asked, taken):
    found = choose(10**8, fraction=asked)
    assert (found.fraction, found.threshold) == (taken, int(taken * 16 * GB))
    said = f"a fraction of {asked:g} is taken as {taken:g}, the nearer limit" in found.reason
    assert said == (asked != taken)
    assert said == (f"{asked:g} is taken" in found.report())


@pytest.mark.parametrize("fraction", [0.0, -1.0, float("nan"), float("inf")])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(xe.ConfigError, match=r"fraction of memory is .*; give a number"):
        choose(10, fraction=fraction)
