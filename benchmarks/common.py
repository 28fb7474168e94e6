"""What the benchmarks share: the simulated data, honest peak memory, child processes, tables.

Nothing heavy is imported at the top, so that a parent process stays small and a child can time
its own imports.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

TRUTH = {
    "D0": 1.5e4,
    "alpha": -0.3,
    "D_offset": 500.0,
    "gamma_dot_t0": 2.8e-3,
    "beta": 0.3,
    "gamma_dot_t_offset": 1e-4,
    "phi0": 5.0,
}
# Stronger flow the other way, which ages otherwise.
STRONG = {
    "D0": 2e4,
    "alpha": -0.8,
    "D_offset": 5e3,
    "gamma_dot_t0": 5e-3,
    "beta": -0.3,
    "gamma_dot_t_offset": 1e-3,
    "phi0": -10.0,
}
CONTRAST, OFFSET, NOISE = 0.2, 1.0, 0.01
Q, GAP = 0.0054, 2e6  # 1/Å, Å
WINDOW = 10.0  # s, whatever the number of frames
# Every start value is this far from the truth, upwards and downwards in turn.
AWAY = 0.4


def start_values(truth: dict[str, float] = TRUTH) -> dict[str, float]:
    """The truth, 40 % off in turns."""
    signs = (1, -1, 1, -1, 1, -1, 1)
    return {name: v * (1 + s * AWAY) for (name, v), s in zip(truth.items(), signs, strict=True)}


def laminar(values: dict[str, float]) -> Any:
    """Laminar flow with the given parameters."""
    from xpcs_eqx import LaminarFlow, with_parameters

    return with_parameters(LaminarFlow(), values)


def simulated(n_angles: int, n_frames: int, seed: int = 0, truth: dict[str, float] = TRUTH) -> Any:
    """Maps of the truth with independent noise; times from one frame spacing to `WINDOW`."""
    import jax
    import numpy as np

    from xpcs_eqx import Geometry
    from xpcs_eqx.simulation import simulate

    t = WINDOW / n_frames * np.arange(1, n_frames + 1)
    geometry = Geometry(q=Q, phi=np.linspace(0.0, 90.0, n_angles), gap=GAP)
    key = jax.random.key(seed)
    return simulate(laminar(truth), t, geometry, CONTRAST, OFFSET, noise=NOISE, key=key)


def write_data(path: str, n_angles: int, n_frames: int, seed: int) -> None:
    """Simulate and write a file in the library's own layout."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from xpcs_eqx.data import write_own

    write_own(path, simulated(n_angles, n_frames, seed))


def peak_memory() -> float:
    """Largest resident size of this process so far [MB].

    On Linux from VmHWM, which starts anew with the program; `ru_maxrss` of a child inherits the
    peak of the process that started it.
    """
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024 / 1e6
    except FileNotFoundError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def environment() -> dict[str, str]:
    """Of a process that finds the bytecode of what it imports, as that of an installed package."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def run(command: Sequence[str], timeout: float | None = None) -> dict[str, Any]:
    """Run a program whose last line is JSON; adds its wall time as `process` [s].

    **Raises:** `RuntimeError` with the end of its error output when it fails.
    """
    clock = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env=environment()
    )
    wall = time.perf_counter() - clock
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return {**json.loads(lines[-1]), "process": wall}


def run_self(script: str, *arguments: Any) -> dict[str, Any]:
    """Run a benchmark script with this interpreter in a fresh process."""
    return run([sys.executable, script, *map(str, arguments)])


def median(values: Sequence[float]) -> float:
    """Median of some numbers, without NumPy."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return 0.5 * (ordered[middle] + ordered[~middle])


def wait_until_quiet(limit: float, patience: float = 600.0) -> float:
    """Wait until the load of the machine is below `limit`, at most `patience` [s]; returns it."""
    end = time.monotonic() + patience
    while (load := os.getloadavg()[0]) > limit and time.monotonic() < end:
        time.sleep(5)
    return load


def sizes(text: str) -> list[tuple[int, int]]:
    """Sizes as `3x101,23x1001`: angles × frames."""
    return [tuple(map(int, one.split("x"))) for one in text.split(",")]  # type: ignore[misc]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A plain table with columns aligned to the right, the first to the left."""
    cells = [list(header), *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else _whole(value)


def _whole(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": sys.version.split()[0],
    }
