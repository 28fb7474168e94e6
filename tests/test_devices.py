"""The same sum on several devices, which a processor can pretend to have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import LAMINAR, TRANSPORT, assert_close, make_data, mapped, start_off

import xpcs_eqx as xe
from xpcs_eqx.data import open_stored, write_own
from xpcs_eqx.fitting import fitted
from xpcs_eqx.objective import MapTiles, PackedMaps, on_one_device, pack_maps, tiles_of

# What four devices find and what one finds, as relative differences.
PROGRAM = """
import json, pickle, sys
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
import equinox as eqx
from helpers import LOSSES, QUICK_TO_COMPILE, TRANSPORT, make_data, mapped, pooled, start_off
import xpcs_eqx as xe
from xpcs_eqx.data import open_stored
from xpcs_eqx.optimize import cost_and_gradient

assert jax.device_count() == 4
answers = {}


def off(found, wanted):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    sizes = [(np.max(np.abs(np.asarray(a) - np.asarray(b))), np.max(np.abs(b))) for a, b in pairs]
    return max(float(difference / max(size, 1e-300)) for difference, size in sizes)


def objective(data, driver=None, **keywords):
    keywords = {"tile": 9, "angle_weights": np.array([1.0, 2.0, 0.5]), **keywords}
    parameters = mapped(start_off(xe.Static(TRANSPORT), 1.2), data)
    return xe.two_time_objective(parameters, data, driver=driver, **keywords)


def sums(term, y):
    return term.angle_equations(y, term.reference, LOSSES["huber"])


compiled = eqx.filter_jit(sums, compiler_options=QUICK_TO_COMPILE)


def at_start(objective):
    term = objective.term
    y = term.parameters.to_coordinates(term.parameters.start)
    return (compiled if objective.traceable else sums)(term, y)


maps = make_data(n=40, diagonal=True)
lazy = open_stored(sys.argv[1])
plain = objective(maps)
shared = objective(maps, xe.DeviceMesh())
values = shared.term.tiles.values
answers["held"] = [shard.data.shape[0] for shard in values.addressable_shards]
wanted = at_start(plain)
answers["maps"] = off(at_start(shared), wanted)
answers["sequence"] = off(at_start(objective(maps, xe.DeviceMesh(count=3))), wanted)
answers["few tiles"] = off(
    at_start(objective(maps, xe.DeviceMesh(), tile=40)), at_start(objective(maps, tile=40))
)
answers["elsewhere"] = off(at_start(pickle.loads(pickle.dumps(shared))), wanted)
points = pooled(maps)
answers["points"] = off(
    at_start(objective(points, xe.DeviceMesh(), tile=100)), at_start(objective(points, tile=100))
)
reference = np.asarray(plain.term.reference)
loop = objective(lazy, xe.objective.DeviceLoop(), piece=1, reference=reference)
answers["file"] = off(at_start(loop), wanted)
begin = plain.variables.to_coordinates(plain.start)
answers["hybrid"] = off(cost_and_gradient(shared, begin), cost_and_gradient(plain, begin))
one, lowered = xe.least_squares(plain), []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, **about: "to_mlir" in name and lowered.append(about.get("fun_name"))
)
other = xe.least_squares(shared)
answers["compiled"] = sum("_evaluate_compiled" in str(name) for name in lowered)
errors = lambda fit: np.array([row.error for row in fit.rows])
answers["fit"] = off(other.values, one.values)
answers["errors"] = off(errors(other), errors(one))
answers["residuals"] = off(np.nan_to_num(other.residuals()), np.nan_to_num(one.residuals()))
answers["evaluations"] = [one.evaluations, other.evaluations]
answers["how"] = [one.uncertainty.chosen, other.uncertainty.chosen]
try:
    objective(maps, xe.DeviceMesh(count=5))
except xe.ConfigError as error:
    answers["too many"] = str(error)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def data():
    return make_data(n=40, diagonal=True)


@pytest.fixture(scope="module")
def answers(data, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("maps") / "maps.h5")
    write_own(path, data)
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", ["maps", "sequence", "few tiles", "elsewhere", "points", "file", "hybrid"]
)
def test_four_devices_find_what_one_finds(answers, kind):
    assert answers[kind] < 1e-12


@pytest.mark.long
def test_every_device_holds_its_share_only(answers):
    # 3 angles of 15 tiles, and three empty ones.
    assert answers["held"] == [12, 12, 12, 12]


@pytest.mark.long
def test_the_fit_is_the_same_with_its_error_bars(answers):
    assert answers["evaluations"][0] == answers["evaluations"][1]
    assert answers["fit"] < 1e-6
    assert answers["errors"] < 1e-6
    assert answers["residuals"] < 1e-6
    assert answers["how"] == ["speckle", "speckle"]


@pytest.mark.long
def test_the_evaluation_is_compiled_once(answers):
    assert answers["compiled"] == 1


@pytest.mark.long
def test_devices_that_are_not_there(answers):
    assert "5 devices were asked for, JAX finds 4" in answers["too many"]
    with pytest.raises(xe.ConfigError, match="platform 'abacus'"):
        xe.DeviceMesh(platform="abacus").mesh  # noqa: B018


def objective_of(data, **keywords):
    keywords = {"tile": 9, **keywords}
    return xe.projected_objective(mapped(start_off(LAMINAR, 1.2), data), data, **keywords)


@pytest.mark.slow
def test_one_device_compiled_mapped_and_differentiated(data):
    parameters = mapped(start_off(xe.Static(TRANSPORT), 1.2), data)
    plain, shared = (
        xe.projected_objective(parameters, data, tile=9, driver=driver)
        for driver in (None, xe.DeviceMesh())
    )
    y = np.asarray(parameters.to_coordinates(parameters.start))
    ys = jnp.asarray(np.stack([y, y + 1e-3]))

    def costs(objective):
        def cost(y):
            return objective.cost(y, objective.memo)

        return jax.jit(lambda ys: (jax.vmap(cost)(ys), jax.grad(cost)(ys[1])))(ys)

    for found, wanted in zip(costs(shared), costs(plain), strict=True):
        assert_close(found, wanted, 1e-10)


def test_packed_maps_are_the_same_maps(data):
    rng = np.random.default_rng(0)
    weights = rng.random((3, 40, 40)) * (rng.random((3, 40, 40)) > 0.1)
    weights = np.triu(weights) + np.swapaxes(np.triu(weights, 1), 1, 2)
    maps = tiles_of(data, size=9, angle_weights=np.array([1.0, 0.0, 4.0]))
    maps = MapTiles(maps.c2, jnp.asarray(weights), maps.root_angle_weights, maps.size)
    packed = pack_maps(maps)
    traced = jax.jit(pack_maps)(maps)
    again = on_one_device({"tiles": packed})["tiles"]
    assert isinstance(packed, PackedMaps)
    assert again.size == maps.size
    for name in ("c2", "root_weights", "root_angle_weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(maps, name))
    for k, row in enumerate(maps.table):
        wanted = maps.block(row)
        for tiles in (packed, traced):
            block = tiles.block(jnp.array([k]))
            np.testing.assert_array_equal(block.values, wanted.values)
            np.testing.assert_array_equal(block.root_weights, wanted.root_weights)


def test_data_in_a_file_are_for_a_loop(data, tmp_path):
    path = str(tmp_path / "maps.h5")
    write_own(path, data)
    lazy = open_stored(path)
    with pytest.raises(xe.ModelError, match="take DeviceLoop"):
        objective_of(lazy, driver=xe.DeviceMesh())
    objective = objective_of(lazy, driver=xe.objective.DeviceLoop())
    with pytest.raises(xe.ModelError, match="DeviceLoop does not allow; load the data"):
        fitted(objective)
    with pytest.raises(xe.ModelError, match="compiled or differentiated"):
        jax.jit(lambda y: objective.cost(y, objective.memo))(jnp.zeros(7))


@pytest.mark.long
def test_the_benchmark_of_a_device_runs_on_any():
    script = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
    how = [
        "--sizes",
        "3x31",
        "--tiles",
        "16,31",
        "--repeats",
        "1",
        "--chains",
        "2",
        "--draws",
        "10",
    ]
    done = subprocess.run(
        [sys.executable, str(script), *how], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["platform"] == jax.default_backend()
    (measured,) = found["sizes"].values()
    print(measured)
    assert set(measured["evaluation"]) == {"16", "31"}
    assert measured["chains"]["draws"] == 10
