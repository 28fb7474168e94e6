import ctypes
import gc
import itertools
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import psutil
import pytest

# Above either, what was compiled is forgotten. Every compiled function takes mappings of memory, of
# which Linux gives a process 65530; XLA crashes without.
_MEMORY = 7_000_000_000  # [bytes]
_MAPPINGS = 55_000
# Tests from one look at them to the next, in which far fewer functions are compiled than would
# reach the end of either.
_BETWEEN = 10

_FLAGS = """
from xpcs_eqx.compiling import quick_options
print(*(f"--{name}={value}".lower() for name, value in quick_options().items()))
"""

# The tests compile far longer than they run: everything is compiled as the library compiles its
# own loops, and not optimised (a quarter of the time; set XLA_FLAGS to have it otherwise, and take
# the fixture `optimised` for tests that run longer than they compile). XLA reads its flags once,
# hence the process that asks which of them it knows; workers and programs that a test starts
# inherit the answer.
if "XLA_FLAGS" not in os.environ:
    asked = subprocess.run(
        [sys.executable, "-c", _FLAGS], capture_output=True, text=True, check=True
    )
    os.environ["XLA_FLAGS"] = f"{asked.stdout.strip()} --xla_backend_optimization_level=0"

# Compiled functions outlive the run, in a folder that both workers and the programs that tests
# start share: most of the time of a first run is compilation. What the environment says wins; an
# empty JAX_COMPILATION_CACHE_DIR turns the cache off.
_CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(Path.home() / ".cache" / "xpcs_eqx_tests"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
for name, value in _CACHE.items():
    os.environ.setdefault(name, value)
# A cache that cannot be read or written costs time, never a test; pyproject.toml says the same
# for the tests themselves.
os.environ.setdefault(
    "PYTHONWARNINGS",
    "ignore:Error reading persistent compilation cache,"
    "ignore:Error writing persistent compilation cache",
)

# Tracing makes and drops millions of small objects: looking for cycles among them as often as
# Python does takes one second in fifteen.
gc.set_threshold(100_000, 50, 100)

import jax  # noqa: E402

# Before anything is imported that holds arrays.
jax.config.update("jax_enable_x64", True)

import equinox as eqx  # noqa: E402
from helpers import SPEED  # noqa: E402

from xpcs_eqx import compiling  # noqa: E402


@cache
def _for_speed(function, options=None):
    options = {**compiling.quick_options(), **SPEED}
    return eqx.filter_jit(function, compiler_options=options)


# Simulates thousands of pixels for a row of error bars, which takes longer than to compile it well.
_RUNS_LONG = {"_pixel_scores"}


def _compiled(function, options, quick=compiling._compiled):
    return (_for_speed if function.__name__ in _RUNS_LONG else quick)(function, options)


compiling._compiled = _compiled


@pytest.fixture(scope="module")
def optimised():
    """From here on the library's functions are optimised, for tests that run long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiling, "_compiled", _for_speed)
        yield


def _mappings():
    maps = Path("/proc/self/maps")
    return len(maps.read_text().splitlines()) if maps.exists() else 0


_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def forget():
    """Compiled functions of hundreds of tests would fill the memory of a small machine."""
    yield
    if next(_tests) % _BETWEEN:
        return
    if psutil.Process().memory_info().rss > _MEMORY or _mappings() > _MAPPINGS:
        jax.clear_caches()
        gc.collect()
        # Else the C library keeps the memory, and every later file begins with nothing compiled.
        if sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
