"""Whole files whose content was changed, fitted: what is called good must still be right.

`python helpers_mutated.py FIRST LAST` fits the files of these seeds and prints what was found.
"""

import os
import random
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, replace

import h5py
import jax
import numpy as np

import xpcs_eqx as xe
from xpcs_eqx.errors import DataError, XPCSError

N, Q, STEP = 61, 0.0054, 0.1
PHI = np.array([0.0, 45.0, 90.0])
TRUTH = xe.LaminarFlow(xe.PowerLawRate(1.2e4, -0.3, 0.0), xe.PowerLawRate(3e-4, 0.2, 0.0), 5.0)
FIXED = ("D_offset", "gamma_dot_t_offset")
# A parameter of a fit that is called good may be off by as many of its errors.
ERRORS = 5.0
# Energy [keV], pixel [m] and distance [m] with which the regions of a small detector lie at Q.
ENERGY, PIXEL, DISTANCE, SIDE = 8.0, 75e-6, 2.25, 128


@dataclass
class Scan:
    """What a file holds; `free`: parameters that a change may change, as no file could tell."""

    c2: np.ndarray
    t: np.ndarray
    phi: np.ndarray
    q: float = Q
    gap: float = 2e6
    dt: float = STEP
    count_time: float = STEP
    stride: int = 1
    begin: int = 1
    intensity: np.ndarray | None = None
    sigma: float | None = None
    free: frozenset[str] = frozenset()


SCALING = frozenset({"contrast", "offset"})
ALL = frozenset({"all"})


def intact(kind, seed):
    """Maps with independent noise, or of speckle."""
    t, geometry = STEP * np.arange(1, N + 1), xe.Geometry(q=Q, phi=PHI)
    key = jax.random.key(seed)
    if kind == "speckle":
        data = xe.simulate_speckle(
            TRUTH, t, geometry, 0.25, n_pixels=2000, mean_counts=5.0, key=key
        )
    else:
        data = xe.simulate(TRUTH, t, geometry, 0.2, 1.0, noise=0.005, key=key)
    return Scan(np.array(data.c2), t, PHI.copy(), intensity=np.full(N, 3.0))


def regions(scan):
    """Number of the region of each pixel: a ring at Q cut into sectors."""
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    radius = np.hypot(x, y)
    ring = np.abs(radius - 40) < 3
    sector = 1 + np.floor((np.degrees(np.arctan2(y, x)) % 180) / 180 * len(scan.c2)).astype(int)
    return np.where(ring, np.minimum(sector, len(scan.c2)), 0)


def write_aps_u(path, scan):
    times = scan.begin * STEP + STEP * np.arange(N)
    with h5py.File(path, "w") as file:
        file["xpcs/qmap/dynamic_v_list_dim0"] = np.array([scan.q])
        file["xpcs/qmap/dynamic_v_list_dim1"] = scan.phi
        file["xpcs/twotime/processed_bins"] = 1 + np.arange(len(scan.c2))
        for k, one in enumerate(scan.c2):
            file[f"xpcs/twotime/correlation_map/c2_{k + 1:05d}"] = np.triu(one)
        file["xpcs/twotime/config/begin_frame"] = scan.begin
        file["xpcs/twotime/config/end_frame"] = 1 + N
        file["xpcs/twotime/config/stride_frame"] = scan.stride
        file["entry/instrument/detector_1/frame_time"] = scan.dt
        file["entry/instrument/detector_1/count_time"] = scan.count_time
        if scan.intensity is not None:
            file["xpcs/spatial_mean/intensity_vs_time"] = np.stack([times, scan.intensity])
        file["xpcs/qmap/energy"] = ENERGY
        file["xpcs/qmap/detector_distance"] = DISTANCE
        file["xpcs/qmap/pixel_size"] = PIXEL
        file["xpcs/qmap/beam_center_x"] = file["xpcs/qmap/beam_center_y"] = SIDE / 2
        file["xpcs/qmap/dynamic_roi_map"] = regions(scan)


def write_npz(path, scan):
    more = {} if scan.sigma is None else {"sigma": np.full(scan.c2.shape, scan.sigma)}
    with open(path, "wb") as stream:
        np.savez(
            stream, c2_exp=scan.c2, phi_angles_list=scan.phi, t1=scan.t, t2=scan.t,
            wavevector_q_list=np.array([scan.q]), L=scan.gap, **more,
        )  # fmt: skip


def write_own(path, scan):
    weights = None if scan.sigma is None else np.full(scan.c2.shape, 1 / scan.sigma)
    data = xe.TwoTimeData(
        c2=scan.c2,
        t=scan.t,
        geometry=xe.Geometry(q=scan.q, phi=scan.phi, gap=scan.gap),
        root_weights=weights,
        diagonal=np.diagonal(scan.c2, axis1=1, axis2=2).astype(float),
        absolute_sigma=weights is not None,
    )
    xe.data.write_own(path, data)


LAYOUTS = {"aps-u": write_aps_u, "npz": write_npz, "own": write_own}


def _frames(draw, most=N // 3):
    """Some frames: one, several or a run."""
    how, count = draw.randrange(3), draw.randrange(1, most)
    if how == 0:
        return [draw.randrange(N)]
    if how == 1:
        return sorted(draw.sample(range(N), min(count, 8)))
    first = draw.randrange(N - count)
    return list(range(first, first + count))


def _angles(draw, scan):
    """One map, or all."""
    every = range(len(scan.c2))
    return list(every) if draw.random() < 0.5 else [draw.randrange(len(scan.c2))]


def _symmetric(draw, shape, spread):
    noise = np.triu(np.random.default_rng(draw.randrange(2**32)).normal(0, spread, shape), 1)
    return noise + np.swapaxes(noise, -1, -2)


def scaled(draw, scan):
    scan.c2[_angles(draw, scan)] *= np.exp(draw.uniform(-0.7, 0.7))
    # A map may be normalised by anything: what it decays by is the same.
    return SCALING


def shifted(draw, scan):
    scan.c2[_angles(draw, scan)] += draw.choice((-1, 1)) * 10 ** draw.uniform(-2, 0.3)
    return SCALING


def filled(draw, scan):
    frames, fill = _frames(draw), draw.choice((0.0, 1.0, -1.0, np.nan, 1.1, 3.0, 1e6, 0.5, 2.0))
    for a in _angles(draw, scan):
        scan.c2[a, frames] = scan.c2[a][:, frames] = fill


def noisy(draw, scan):
    """Frames without photons, of which a correlator makes noise about some level."""
    frames, level = _frames(draw), draw.choice((0.0, 1.0, 0.5, 1.1))
    noise = level + _symmetric(draw, scan.c2.shape, 10 ** draw.uniform(-2, 0))
    for a in _angles(draw, scan):
        scan.c2[a, frames] = noise[a, frames]
        scan.c2[a][:, frames] = noise[a][:, frames]


def lowered(draw, scan):
    """Frames whose pairs are scaled or shifted, as by a wrong intensity."""
    frames, by, plus = _frames(draw), np.exp(draw.uniform(-1, 1)), draw.random() < 0.5
    for a in _angles(draw, scan):
        for k in frames:
            here = scan.c2[a, k] * by if not plus else scan.c2[a, k] + by - 1
            scan.c2[a, k] = scan.c2[a][:, k] = here


def repeated(draw, scan):
    """A detector that shows an earlier frame once more."""
    frames = [k for k in _frames(draw) if k > 0]
    order = np.arange(N)
    frozen = draw.random() < 0.5
    for k in frames:
        order[k] = order[frames[0]] if frozen else order[k - 1]
    for a in range(len(scan.c2)):
        scan.c2[a] = scan.c2[a][np.ix_(order, order)]


def reordered(draw, scan):
    """Frames in another order."""
    order, how = list(range(N)), draw.randrange(4)
    if how == 0:
        i, j = draw.sample(range(N), 2)
        order[i], order[j] = order[j], order[i]
    elif how == 1:
        cut = draw.randrange(1, N)
        order = order[cut:] + order[:cut]
    elif how == 2:
        size = draw.randrange(2, 12)
        first, second = sorted(draw.sample(range(N // size), 2))
        a, b = slice(first * size, (first + 1) * size), slice(second * size, (second + 1) * size)
        order[a], order[b] = order[b], order[a]
    else:
        draw.shuffle(order)
    for a in _angles(draw, scan):
        scan.c2[a] = scan.c2[a][np.ix_(order, order)]


def flipped(draw, scan):
    """Axes exchanged, or run backwards."""
    how = draw.randrange(3)
    for a in _angles(draw, scan):
        if how == 0:
            scan.c2[a] = scan.c2[a].T
        elif how == 1:
            scan.c2[a] = scan.c2[a][::-1]
        else:
            scan.c2[a] = scan.c2[a][::-1, ::-1]
    # A film that runs backwards is one of another sample.
    return ALL if how == 2 else frozenset()


def blocks(draw, scan):
    """Two blocks of maps exchanged, of one map or of two."""
    size, one, other = draw.randrange(4, 25), draw.randrange(3), draw.randrange(3)
    (i, j), (k, m) = ([draw.randrange(N - size) for _ in range(2)] for _ in range(2))
    c2 = scan.c2.copy()
    scan.c2[one, i : i + size, j : j + size] = c2[other, k : k + size, m : m + size]
    scan.c2[other, k : k + size, m : m + size] = c2[one, i : i + size, j : j + size]
    for a in {one, other}:
        scan.c2[a] = np.triu(scan.c2[a]) + np.triu(scan.c2[a], 1).T


def exchanged(draw, scan):
    """Maps of other azimuths, or one in place of all."""
    order = list(range(len(scan.c2)))
    draw.shuffle(order)
    if draw.random() < 0.5:
        order = [order[0]] * len(order)
    scan.c2 = scan.c2[order]


def cut(draw, scan):
    """A dataset that ends early, or whose beginning is gone."""
    rows = draw.randrange(5, N - 5)
    for a in _angles(draw, scan):
        rest = slice(rows, None) if draw.random() < 0.5 else slice(None, rows)
        scan.c2[a, rest] = scan.c2[a][:, rest] = draw.choice((0.0, np.nan))


def typed(draw, scan):
    """Another type of numbers, coarser steps, values cut off."""
    how = draw.randrange(5)
    if how == 0:
        scan.c2 = scan.c2.astype(np.float16)
    elif how == 1:
        scan.c2 = scan.c2.astype(np.int32)
    elif how == 2:
        step = 10 ** draw.uniform(-3, -0.5)
        scan.c2 = np.round(scan.c2 / step) * step
    elif how == 3:
        low, high = np.quantile(scan.c2, [draw.uniform(0, 0.4), draw.uniform(0.6, 1)])
        scan.c2 = np.clip(scan.c2, low, high)
    else:
        # As whole numbers, of which nothing says by what they were multiplied.
        scan.c2 = np.round(scan.c2 * 10 ** draw.uniform(1, 4)).astype(np.int32)
        return SCALING
    return frozenset()


def curved(draw, scan):
    """Something else than c2: its square, its root, its logarithm, the field."""
    how = draw.randrange(5)
    c2 = scan.c2
    if how == 0:
        scan.c2 = c2**2
    elif how == 1:
        scan.c2 = np.sqrt(np.maximum(c2, 0))
    elif how == 2:
        scan.c2 = 1 + np.log(np.maximum(c2, 1e-3))
    elif how == 3:
        scan.c2 = 1 + np.sqrt(np.maximum(c2 - 1, 0))
    else:
        scan.c2 = 2 - c2
    # To lowest order in the contrast these are scaled and shifted c2, and decay almost like it.
    return ALL if how in (0, 1, 2) else frozenset()


def outliers(draw, scan):
    """Single pairs that are far off."""
    share, size = 10 ** draw.uniform(-3.5, -1), 10 ** draw.uniform(-1.5, 4)
    random = np.random.default_rng(draw.randrange(2**32))
    hit = np.triu(random.random(scan.c2.shape) < share, 1) * size
    scan.c2 += hit + np.swapaxes(hit, 1, 2)


def drifting(draw, scan):
    """A level that changes with the age, as where the mean intensity was not divided out."""
    by = 1 + draw.uniform(0.01, 0.3) * np.linspace(-1, 1, N) ** draw.choice((1, 2))
    for a in _angles(draw, scan):
        scan.c2[a] *= by[:, None] * by


def smoothed(draw, scan):
    """Frames that were averaged with their neighbours."""
    width = draw.choice((2, 3, 5))
    kernel = np.ones(width) / width
    for axis in (1, 2):
        scan.c2 = np.apply_along_axis(np.convolve, axis, scan.c2, kernel, mode="same")


def timed(draw, scan):
    """Times that are not those of the frames."""
    how = draw.randrange(4)
    by = np.exp(draw.choice((-1, 1)) * draw.uniform(0.1, 2))
    if how == 0:
        scan.t, scan.dt, scan.count_time = scan.t * by, scan.dt * by, scan.count_time * by
        return ALL
    if how == 1:
        scan.count_time = STEP * max(by, 1 / by)
    elif how == 2:
        scan.stride = draw.randrange(2, 6)
    else:
        place = draw.randrange(1, N - 1)
        scan.t = scan.t + np.where(np.arange(N) >= place, draw.uniform(0.5, 20) * STEP, 0)
    return frozenset()


def begun(draw, scan):
    """Another beginning of time, of which explicit times tell nothing else."""
    scan.begin, scan.t = draw.randrange(2, 60), scan.t + draw.uniform(1, 60) * STEP
    return ALL


def turned(draw, scan):
    """Azimuths of other maps, turned or in other units."""
    how = draw.randrange(4)
    if how == 0:
        scan.phi = np.array(draw.sample(list(scan.phi), 3))
    elif how == 1:
        scan.phi = scan.phi + draw.uniform(5, 85)
    elif how == 2:
        scan.phi = np.radians(scan.phi)
    else:
        scan.phi[draw.randrange(3)] += draw.uniform(10, 90)
    return frozenset()


def moved(draw, scan):
    """q or gap: all coefficients follow them."""
    if draw.random() < 0.7:
        scan.q *= np.exp(draw.choice((-1, 1)) * draw.uniform(0.2, 2))
    else:
        scan.gap *= np.exp(draw.choice((-1, 1)) * draw.uniform(0.2, 2))
    return ALL


def weighed(draw, scan):
    """A sigma that is not that of the maps."""
    scan.sigma = 0.005 * np.exp(draw.uniform(-2, 2))


def dark(draw, scan):
    """Frames without intensity beside maps that do not show it."""
    scan.intensity = np.full(N, 3.0)
    scan.intensity[_frames(draw)] = draw.choice((0.0, np.nan, 100.0))


def bits(draw, scan):
    """Bytes of the written file, changed afterwards: see `attempt`."""


def holes(draw, scan):
    """Pairs that were not correlated: beyond a lag, in a block, within ages, here and there."""
    i, j = np.indices((N, N))
    low, high = sorted(draw.sample(range(2, N - 2), 2))
    start = draw.randrange(N - 4)
    block = (i >= start) & (i < start + high - low) & (j >= low) & (j < high)
    where = draw.choice(
        (
            np.abs(i - j) >= low,
            block | block.T,
            (i + j >= low) & (i + j < high),
            _symmetric(draw, (N, N), 1.0) > draw.uniform(0.5, 2.0),
        )
    )
    fill = draw.choice((0.0, 1.0, -1.0, np.nan, 1.1, 3.0, 1e6, 0.5))
    minus = draw.choice((0.0, 0.0, 1.0))
    scan.c2 = scan.c2 - minus
    for a in _angles(draw, scan):
        scan.c2[a][where & (i != j)] = fill
    return SCALING if minus else frozenset()


MUTATIONS = (
    scaled, shifted, filled, noisy, lowered, repeated, reordered, flipped, blocks, exchanged, cut,
    typed, curved, outliers, drifting, smoothed, timed, begun, turned, moved, weighed, dark, bits,
    holes,
)  # fmt: skip
# What contradicts something else that APS-U files hold: there it is found out.
TOLD = {"timed": "aps-u", "moved": "aps-u"}


def fitted(path):
    """The fit of a file, `None` where it is refused."""
    data = xe.load(path)
    start = xe.LaminarFlow(xe.PowerLawRate(8e3, 0.0, 0.0), xe.PowerLawRate(2e-4, 0.0, 0.0), 0.0)
    parameters = xe.parameter_map(start, data.t, fixed=FIXED)
    return xe.least_squares(xe.projected_objective(parameters, data))


def seen_from(phi, phi0):
    """What phi0 of a right file with such azimuths is, where PHI has another.

    Azimuths that are turned or mirrored are those of a flow that is turned or mirrored, and enter
    by cos² alone: nothing tells the file of one from the changed file of the other. One that is
    off by less than 5° moves phi0 by about its error.
    """
    for sign in (1, -1):
        turn = phi - sign * PHI
        turn = turn[0] + (turn - turn[0] + 90) % 180 - 90
        if np.ptp(turn) < 5:
            return sign * phi0 + np.median(turn)
    return phi0


def values_of(fit):
    return {row.name: (row.value, row.error) for row in fit.rows if row.role != "fixed"}


def attempt(seed, folder, originals):
    """Kind of change, what became of it, and parameters that are off in a fit called good."""
    draw = random.Random(seed)
    mutate = MUTATIONS[seed % len(MUTATIONS)]
    layout = draw.choice(list(LAYOUTS))
    kind, (scan, before) = draw.choice(list(originals.items()))
    scan = replace(scan, c2=scan.c2.copy(), phi=scan.phi.copy())
    free = mutate(draw, scan) or frozenset()
    if mutate.__name__ == "moved" and layout == "aps-u" and scan.q != Q:
        free = frozenset()
    path = os.path.join(folder, "mutated")
    LAYOUTS[layout](path, scan)
    if mutate is bits:
        with open(path, "r+b") as stream:
            size = stream.seek(0, os.SEEK_END)
            for _ in range(draw.randrange(1, 20)):
                stream.seek(draw.randrange(size))
                stream.write(bytes([draw.randrange(256)]))
    what = f"{mutate.__name__} {layout} {kind}"
    try:
        fit = fitted(path)
    except DataError:
        return what, "refused", []
    except XPCSError as error:
        return what, type(error).__name__, []
    if fit.quality.flag != "good":
        return what, fit.quality.flag, []
    found, off = values_of(fit), []
    for name, (value, error) in found.items():
        known = name in free or name.partition("[")[0] in free or "all" in free
        if not known and name in before:
            right, scatter = before[name]
            away = value - right
            if name == "phi0" and mutate is turned:
                right = seen_from(scan.phi, right)
                away = (value - right + 90) % 180 - 90
            if not abs(away) <= ERRORS * max(error, scatter):
                off.append(f"{name} {value:.5g} ± {error:.2g} for {right:.5g}")
    return what, "good", off


def originals(folder, kinds=("independent", "speckle")):
    """Intact scans and the parameters of their fits."""
    out = {}
    for kind in kinds:
        scan = intact(kind, 3)
        path = os.path.join(folder, "intact")
        write_own(path, scan)
        fit = fitted(path)
        assert fit.quality.flag == "good", fit.quality
        out[kind] = scan, values_of(fit)
    return out


def main(first, last):
    warnings.simplefilter("ignore")
    tally = Counter()
    with tempfile.TemporaryDirectory() as folder:
        right = originals(folder)
        for seed in range(first, last):
            what, flag, off = attempt(seed, folder, right)
            tally[flag] += 1
            if off:
                tally["slipped"] += 1
                print("slipped", seed, what, off[:3], flush=True)
    print(dict(tally))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(*map(int, sys.argv[1:]))
