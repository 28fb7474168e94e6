"""Whether data are fitted in memory, band by band from their file, or as a stream."""

import math
import os
from pathlib import Path
from typing import Literal, get_args

import equinox as eqx

from ...errors import ConfigError

Choice = Literal["in_memory", "out_of_core", "hybrid"]

VARIABLE = "XPCS_EQX_MEMORY_FRACTION"
FRACTION = 0.75
LIMITS = (0.1, 0.9)
# Working memory of a solver that stores the Jacobian, in units of the Jacobian.
JACOBIAN_FACTOR = 6.5
# What the program holds at its peak, in units of the data, measured as in tests/test_memory.py: a
# fit 2.0 (the maps as they were read beside those of JAX, while they are handed over), its results
# not more (the maps, and of fitted ones and residuals a band of rows or what is drawn).
COPIES = 3


class Strategy(eqx.Module):
    """How data are to be fitted, and the numbers the choice was made from [bytes].

    - `choice`: `in_memory`, `out_of_core` (pieces of a file, same solver) or `hybrid` (streaming
        optimiser).
    - `data`: the maps; `needed`: what a fit in memory and its results take for them at their peak.
    - `stored_jacobian`: what a solver that stores the Jacobian would take at its peak.
    - `total`: memory of the machine, or of the container; `fraction` of it is the `threshold`.
    - `reason`: the decision in a sentence.
    """

    choice: Choice = eqx.field(static=True)
    data: int = eqx.field(static=True)
    needed: int = eqx.field(static=True)
    stored_jacobian: int = eqx.field(static=True)
    total: int = eqx.field(static=True)
    fraction: float = eqx.field(static=True)
    threshold: int = eqx.field(static=True)
    reason: str = eqx.field(static=True)

    def report(self) -> str:
        """The decision and its numbers in one line."""
        return (
            f"{self.choice.replace('_', ' ')}: {self.reason} (data {_size(self.data)}, in a fit "
            f"{COPIES} times that; of {_size(self.total)} {100 * self.fraction:g} % may be taken; "
            f"a stored Jacobian would take {_size(self.stored_jacobian)})"
        )


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.4g} TB"


def memory_fraction() -> float:
    """Fraction of the memory that data may take, from the environment or 0.75.

    **Raises:** `ConfigError` when XPCS_EQX_MEMORY_FRACTION is no positive number. Numbers outside
    0.1 … 0.9 are taken as the nearer limit.
    """
    text = os.environ.get(VARIABLE)
    if text is None:
        return FRACTION
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    found = f"the environment variable {VARIABLE} is {text!r}; give a fraction of the memory"
    return _within_limits(value, found, f", or unset it for {FRACTION:g}")


def _within_limits(fraction: float, found: str, otherwise: str = "") -> float:
    if not (math.isfinite(fraction) and fraction > 0):
        raise ConfigError(f"{found} between {LIMITS[0]:g} and {LIMITS[1]:g}{otherwise}")
    return min(max(fraction, LIMITS[0]), LIMITS[1])


def total_memory() -> int:
    """Memory this process may use [bytes]: that of the machine, or less in a container.

    **Raises:** `ConfigError` when the system does not say.
    """
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError) as error:
        raise ConfigError(
            f"the system does not say how much memory it has ({error}); give total_memory [bytes]"
        ) from error
    return min([machine, *_container_limits()])


def _container_limits() -> list[int]:
    """Limits of the control groups (Linux) this process is in, both versions."""
    root = Path("/sys/fs/cgroup")
    files = [root / "memory.max", root / "memory" / "memory.limit_in_bytes"]
    try:
        for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
            group = line.split(":", 2)[2].lstrip("/")
            files.append(root / group / "memory.max")
    except (OSError, IndexError, ValueError):
        # No control groups on this system, so there is no limit by them.
        return []
    limits = []
    for file in files:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        limits.extend([int(text)] if text.isdigit() else [])
    return [limit for limit in limits if limit > 0]


def choose_strategy(
    n_entries: int,
    itemsize: int,
    n_parameters: int,
    *,
    forced: Choice | None = None,
    total_memory_bytes: int | None = None,
    fraction: float | None = None,
) -> Strategy:
    """How to fit data of a given size.

    Since no Jacobian is stored, everything that fits as data is fitted in memory, and larger maps
    from their file.

    **Arguments:**

    - `n_entries`: entries of all maps, both triangles; `itemsize`: bytes of one, the weights that
        are stored beside it included.
    - `n_parameters`: parameters of the fit, for the estimate of a stored Jacobian.
    - `forced`: what a user insists on.
    - `total_memory_bytes`, `fraction`: instead of what the system and the environment say. A
        fraction outside 0.1 … 0.9 is taken as the nearer limit, which the reason says.

    **Raises:** `ConfigError` for an unknown `forced` or a fraction that is no positive number.
    """
    if forced is not None and forced not in get_args(Choice):
        raise ConfigError(
            f"the strategy {forced!r} is unknown; known are {', '.join(get_args(Choice))}"
        )
    asked = memory_fraction() if fraction is None else fraction
    fraction = _within_limits(asked, f"the fraction of memory is {asked}; give a number")
    total = total_memory() if total_memory_bytes is None else total_memory_bytes
    data = n_entries * itemsize
    needed, threshold = COPIES * data, int(fraction * total)
    comparison = f"the data need {_size(needed)} in memory, %s the threshold {_size(threshold)}"
    if forced is not None:
        choice, reason = forced, "asked for"
    elif needed <= threshold:
        choice, reason = "in_memory", comparison % "below"
    else:
        choice, reason = "out_of_core", comparison % "above"
    if fraction != asked:
        reason += f"; a fraction of {asked:g} is taken as {fraction:g}, the nearer limit"
    return Strategy(
        choice=choice,
        data=data,
        needed=needed,
        stored_jacobian=int(n_entries * n_parameters * 8 * JACOBIAN_FACTOR),
        total=total,
        fraction=fraction,
        threshold=threshold,
        reason=reason,
    )
