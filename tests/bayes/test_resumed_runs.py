"""A single run: tried again when it cannot be used, and gone on with after an interrupt."""

import os
import sys

import numpy as np
import pytest
from helpers_shards import bent_problem

from xpcs_eqx.bayes import GivenSigma, LockStepChains, Normal, Nuts, sample
from xpcs_eqx.bayes.nuts.chains import ThreadedChains
from xpcs_eqx.errors import CheckpointError, FitError, ModelError

PRIOR = {"slope": Normal(0.6, 0.02), "bend": Normal(-0.06, 0.002)}


@pytest.fixture(scope="module")
def bent():
    return bent_problem(priors=PRIOR)[0]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [LockStepChains(), ThreadedChains()])
@pytest.mark.parametrize("stopped_at", [1, 2, 5])
def test_an_interrupted_run_goes_on_with_the_same_draws(bent, tmp_path, parallel, stopped_at):
    """In the first window of the warm-up, in a later one, and while draws are taken."""
    settings = {
        "noise": GivenSigma(0.5),
        "sampler": Nuts(chains=2, warmup=130, draws=250, parallel=parallel),
        "key": 3,
    }
    folder, seen = str(tmp_path / "run"), []

    def stop(progress):
        seen.append(progress)
        if len(seen) == stopped_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(bent, PRIOR, folder=folder, callback=stop, **settings)
    kept = len(os.listdir(os.path.join(folder, "attempt-0")))
    assert kept == stopped_at
    module, made = sys.modules[sample.__module__].require_blackjax(), []
    original = module.Runner._moved

    def counted(self, *rest):
        made.append(1)
        return original(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Runner, "_moved", counted)
        found = sample(bent, PRIOR, folder=folder, **settings)
    plain = sample(bent, PRIOR, **settings)
    # Pieces that were there are not made again.
    assert len(made) + kept == len(os.listdir(os.path.join(folder, "attempt-0")))
    np.testing.assert_array_equal(found.theta, plain.theta)
    np.testing.assert_array_equal(found.metric, plain.metric)
    for name, one, other in zip(found.draws._fields, found.draws, plain.draws, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    with pytest.raises(CheckpointError, match="another problem"):
        sample(bent, PRIOR, folder=folder, **{**settings, "key": 4})
    with pytest.raises(CheckpointError, match="another problem"):
        sample(bent, {**PRIOR, "slope": Normal(0.6, 0.03)}, folder=folder, **settings)


def _of(positions, apart, key):
    """Draws about the start, the first chain away from the others by `apart`."""
    from xpcs_eqx.bayes.nuts.chains import Draws

    chains, size = positions.shape
    rng = np.random.default_rng(int(key))
    z = rng.normal(size=(chains, 400, size))
    z[0] += apart
    zero = np.zeros((chains, 400))
    whole = zero.astype(int)
    return Draws(z, zero, zero > 1, rng.normal(size=zero.shape), whole, whole + 1, zero + 0.9, z)


@pytest.mark.parametrize("ends", ["apart", "nowhere"])
def test_a_run_that_cannot_be_used_is_tried_again(bent, ends, monkeypatch):
    module, given = sys.modules[sample.__module__], []

    def scripted(density, settings, *rest):
        positions, step_size, metric, target, sampler, key = settings
        given.append(
            (positions, step_size, target, sampler.warmup, module.jax.random.key_data(key))
        )
        last = len(given) == 3
        if ends == "nowhere" and not last:
            raise FitError("the log density is not finite at the start of chains [0]")
        draws = _of(positions, 0.0 if last else 3.0, len(given))
        return module.ChainRun(draws, step_size, metric, 0.0, 0.0)

    monkeypatch.setattr(module, "run_chains", scripted)
    sampler = Nuts(warmup=100, retries=2, target_acceptance=0.8)
    found = sample(bent, PRIOR, noise=GivenSigma(0.5), sampler=sampler, key=1)
    assert found.status == "converged"
    assert [one[3] for one in given] == [100, 200, 300]
    for k in (1, 2):
        np.testing.assert_allclose(given[k][0], given[0][0] * 0.5**k)
        assert given[k][1] == pytest.approx(given[0][1] * 0.5**k)
        assert given[k][2] == pytest.approx(1 - 0.2 * 0.5**k)
    assert len({tuple(one[4].tolist()) for one in given}) == 3
    said = [note for note in found.notes if note.startswith("attempt")]
    assert len(said) == 2
    assert ("R-hat of" if ends == "apart" else "not finite") in said[0]
    # Without further attempts it is as before: the draws with their status, or what was raised.
    given.clear()
    once = {"noise": GivenSigma(0.5), "sampler": Nuts(warmup=100), "key": 1}
    if ends == "apart":
        assert sample(bent, PRIOR, **once).status == "not_converged"
    else:
        with pytest.raises(FitError, match="not finite"):
            sample(bent, PRIOR, **once)
    assert len(given) == 1
    with pytest.raises(ModelError, match="retries is -1"):
        Nuts(retries=-1)
