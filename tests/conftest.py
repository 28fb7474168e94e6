import gc
import resource
import sys

import jax
import pytest

jax.config.update("jax_enable_x64", True)

# Above this, what was compiled for one file of tests is forgotten before the next [KB].
_MEMORY = 6_000_000


def _peak_memory():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Compiled functions of hundreds of tests would fill the memory of a small machine."""
    yield
    if _peak_memory() > _MEMORY:
        jax.clear_caches()
        gc.collect()
