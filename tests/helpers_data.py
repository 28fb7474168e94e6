"""Small two-time data sets made with NumPy alone, for the tests of reading and writing."""

import numpy as np

from xpcs_eqx.data import Geometry, Provenance, Selection, TwoTimeData, from_dict

PHI = (-12.5, 30.0, 30.0)  # a duplicate angle is legal


def symmetric_maps(n_angles=3, n=12, seed=0, dtype=np.float64, noise=0.01):
    """Symmetric maps with an exponential decay, noise once for each unordered pair."""
    rng = np.random.default_rng(seed)
    lag = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :])
    upper = np.triu(rng.normal(scale=noise, size=(n_angles, n, n)))
    drawn = upper + np.swapaxes(np.triu(upper, 1), 1, 2)
    return (1 + 0.3 * np.exp(-lag / 4) + drawn).astype(dtype)


def two_time(phi=PHI, n=12, q=0.0054, dt=0.1, seed=0, start=0.0, sigma=None, dtype=np.float64):
    """A `TwoTimeData` whose diagonal is known and whose pairs all count."""
    c2 = symmetric_maps(len(phi), n, seed, dtype)
    return TwoTimeData(
        c2=c2,
        t=start + dt * np.arange(n),
        geometry=Geometry(q=q, phi=np.array(phi), gap=2_000_000.0),
        root_weights=None if sigma is None else np.full_like(c2, 1 / sigma),
        diagonal=np.diagonal(c2, axis1=1, axis2=2).astype(np.float64),
        absolute_sigma=sigma is not None,
        provenance=Provenance(),
    )


def loader_form(data):
    """The dictionary in loader form that means the same as `data`."""
    return {
        "phi_angles_list": np.asarray(data.geometry.phi),
        "c2_exp": np.asarray(data.c2),
        "t1": np.asarray(data.t),
        "t2": np.asarray(data.t),
        "wavevector_q_list": np.full(data.n_angles, float(data.geometry.q)),
    }


def assert_same_fit_input(found, wanted, rtol=1e-12):
    """Equal pairs, weights, times and geometry: whatever a fit looks at."""
    n = wanted.n_frames
    i, j = np.triu_indices(n, 1)
    np.testing.assert_allclose(found.c2[:, i, j], wanted.c2[:, i, j], rtol=rtol)
    np.testing.assert_allclose(found.c2[:, j, i], found.c2[:, i, j], rtol=1e-4)
    np.testing.assert_allclose(found.t, wanted.t, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.geometry.phi, wanted.geometry.phi, rtol=1e-12)
    np.testing.assert_allclose(found.geometry.q, wanted.geometry.q, rtol=1e-12)
    np.testing.assert_allclose(found.geometry.gap, wanted.geometry.gap, rtol=1e-12)
    np.testing.assert_allclose(found.diagonal, wanted.diagonal, rtol=rtol)
    assert found.c2.dtype == wanted.c2.dtype
    assert found.n_pairs == wanted.n_pairs
    assert (found.root_weights is None) == (wanted.root_weights is None)
    if wanted.root_weights is not None:
        np.testing.assert_allclose(
            found.root_weights[:, i, j], wanted.root_weights[:, i, j], rtol=1e-6
        )


def noisy_map(n=40, rate=0.1, noise=0.01, seed=0, frames=(), fill=0.0, contrast=0.2):
    """One map that decays, with noise, and frames that hold one number."""
    random, lag = np.random.default_rng(seed), np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    drawn = np.triu(random.normal(0, noise, (n, n)), 1)
    c2 = 1 + contrast * np.exp(-rate * lag) + drawn + drawn.T
    c2[list(frames)] = fill
    c2[:, list(frames)] = fill
    return c2


def data_of(*maps, **selection):
    """Data in memory of some maps."""
    t = 0.1 * np.arange(len(maps[0]))
    given = {"phi": np.arange(len(maps)), "g2": np.stack(maps), "t1": t, "t2": t, "q": 0.005}
    return from_dict(given, selection=Selection(**selection))


def notes_of(data):
    """All that is remarked on some data."""
    return " ".join(data.provenance.notes)
