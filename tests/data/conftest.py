import os
import pathlib

import pytest


@pytest.fixture
def bnl_map():
    """Path of the real two-time map, in a folder next to the repository or named by a variable."""
    beside = pathlib.Path(__file__).parents[3] / "shared" / "data" / "bnl_twotime_350.npy"
    path = pathlib.Path(os.environ.get("XPCS_EQX_REAL_MAP", beside))
    if not path.is_file():
        pytest.skip("the real map is not here; set XPCS_EQX_REAL_MAP to its path")
    return path
