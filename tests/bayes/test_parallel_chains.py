"""Chains give the same draws whichever way they go side by side."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xpcs_eqx.bayes import ChainsOnDevices, LockStepChains, Nuts
from xpcs_eqx.bayes.nuts.chains import ThreadedChains
from xpcs_eqx.errors import ConfigError, ModelError

# What two devices find and what one finds.
PROGRAM = """
import json
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
import equinox as eqx
from xpcs_eqx.bayes import ChainsOnDevices, LockStepChains, Nuts
from xpcs_eqx.bayes.nuts import nuts
from xpcs_eqx.bayes.nuts.chains import ChainSettings, ThreadedChains
from xpcs_eqx.bayes.nuts.sample import run_chains

assert jax.device_count() == 2
answers = {}


class Valley(eqx.Module):
    data: jax.Array

    def __call__(self, z):
        return -jnp.sum((z[1] - 0.1 * z[0] ** 2 - self.data) ** 2) - 0.5 * z[0] ** 2


def draws(parallel, chains=4):
    rng = np.random.default_rng(0)
    settings = ChainSettings(
        rng.normal(size=(chains, 2)),
        0.3,
        np.eye(2),
        0.8,
        Nuts(chains=chains, warmup=30, draws=120, parallel=parallel),
        jax.random.key(3),
    )
    return run_chains(Valley(jnp.linspace(0.0, 0.1, 5)), settings).draws


compiled = []


def listen(event, seconds, **keywords):
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append(keywords.get("fun_name", ""))


jax.monitoring.register_event_duration_secs_listener(listen)
one = draws(LockStepChains())
answers["compiled by one"] = sum("_advance" in name for name in compiled)
compiled.clear()
where, original = [], nuts._advance


def watching(mesh, settings, density, chains, *rest):
    out = original(mesh, settings, density, chains, *rest)
    shards = out[1].position.addressable_shards
    where.append(
        (
            sorted((s.device.id, s.data.shape[0]) for s in shards),
            sorted(s.device.id for s in density.data.addressable_shards),
        )
    )
    return out


nuts._advance = watching
two = draws(ChainsOnDevices())
nuts._advance = original
answers["compiled by two"] = sum("_advance" in name for name in compiled)
answers["where"] = where[0] if all(one == where[0] for one in where) else where


def off(found, wanted):
    pairs = zip(found, wanted, strict=True)
    return max(float(np.max(np.abs(np.asarray(a, float) - np.asarray(b, float)))) for a, b in pairs)


answers["devices"] = off(two, one)
answers["threads"] = off(draws(ThreadedChains(3)), one)
answers["spread"] = float(np.std(one.position[..., 0]))
answers["of three chains"] = ChainsOnDevices().mesh(3).size
answers["of six chains"] = ChainsOnDevices().mesh(6).size
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers():
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(Path(__file__).parent),
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("way", ["devices", "threads"])
def test_draws_do_not_depend_on_the_way(answers, way):
    assert answers["spread"] > 0.5
    assert answers[way] < 1e-9


@pytest.mark.long
def test_each_device_has_its_share_of_the_chains_and_all_data(answers):
    assert answers["where"] == [[[0, 2], [1, 2]], [0, 1]]
    assert answers["of three chains"] == 1
    assert answers["of six chains"] == 2


@pytest.mark.long
def test_chains_on_devices_are_compiled_once(answers):
    assert answers["compiled by one"] == 1
    assert answers["compiled by two"] == 1


def test_chains_by_batch():
    def sizes(parallel, chains=5):
        batches = parallel.batches(chains)
        np.testing.assert_array_equal(np.concatenate(batches), np.arange(chains))
        return [batch.size for batch in batches]

    assert sizes(LockStepChains()) == [5]
    assert sizes(ThreadedChains()) == [1] * 5
    assert sizes(ThreadedChains(2)) == [3, 2]
    assert sizes(ThreadedChains(9)) == [1] * 5
    assert sizes(ChainsOnDevices()) == [5]
    assert isinstance(Nuts().parallel, ThreadedChains)


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ModelError, match="take 1 or 2 or 4 devices"):
        Nuts(chains=4, parallel=ChainsOnDevices(3))
    with pytest.raises(ModelError, match="count is 0; give a whole number from 1"):
        ThreadedChains(0)
    with pytest.raises(ConfigError, match="64 devices were asked for"):
        ChainsOnDevices(64).mesh(64)
