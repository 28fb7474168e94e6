"""Bins of age and lag: means over pairs of frames, made of maps or read from files."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import DataError
from .bad_frames import left_out
from .baseline import Baseline, Levels, baseline_of, checked_baseline, levels_of
from .checks import agreeing, given_scalar, increasing_times, numbers, positive, positive_sigma
from .chosen import checked_sigma, choose_places, doubts_of, gap_of, one_q, refuse
from .fills import fills_of
from .layouts.maps import RawMaps, SlicedMap
from .meaning import counted_from_start, improbable_q, remarks_on_places
from .selection import Selection
from .two_time import Bins, Geometry, PooledData, Provenance, TwoTimeData

# Cells along the lags and along the ages of a bin. A bin of no more lags than this and twice as
# many ages is summed pair by pair; of a wider one two pairs of each cell stand for the others.
_CELLS = 32
# What edges may be off the times of frames, as a part of a frame.
_SLACK = 1e-6
# Pairs of a series that are looked at one by one, and frames of a series.
_ENOUGH, _MOST_FRAMES = 4e6, 200_000
# Part of the bins with numbers that may lie where no pair of frames does.
_STRAY = 0.1


class _Lattice(NamedTuple):
    """Bins of the pairs of equally spaced frames, as whole numbers.

    - `n_frames`; `sums`: edges of the sum of both frames; `lags`: edges of their difference.
    - `every`: of each lag, of how many pairs one is looked at.
    """

    n_frames: int
    sums: Int[np.ndarray, "age_edge"]
    lags: Int[np.ndarray, "lag_edge"]
    every: int = 1

    @classmethod
    def of(
        cls, n_frames: int, ages: np.ndarray, lags: np.ndarray, enough: float = np.inf
    ) -> "_Lattice":
        """Of edges in frames; a bin holds its lower edge, the last one both.

        Not many more than `enough` pairs are looked at.
        """

        def whole(edges):
            found = np.append(np.ceil(edges[:-1] - _SLACK), np.floor(edges[-1] + _SLACK) + 1)
            # Edges far beyond the series are as good as its ends.
            return np.clip(found, 0, 2 * n_frames).astype(int)

        sums, steps = whole(2 * ages), whole(lags)
        # A frame with itself is no pair, and no lag is longer than the series.
        every = max(1, round(0.5 * n_frames**2 / enough))
        return cls(n_frames, sums, np.clip(steps, 1, n_frames), every)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of ages and of lags."""
        return self.sums.size - 1, self.lags.size - 1

    def bands(self) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Pairs of some neighbouring lags: number of the lag bin, frames, age bins and age cells.

        Pairs of one age bin and one cell in it are near each other.
        """
        for k, (low, high) in enumerate(pairwise(self.lags.tolist())):
            # Where pairs of such lags are: none is younger than its lag says, or older.
            limits = np.clip(self.sums, low, 2 * self.n_frames - 1 - low)
            widths = np.diff(limits)
            edges = np.arange(low, high + 1)
            if edges.size - 1 > _CELLS:
                edges = np.unique(np.round(np.geomspace(low, high, _CELLS + 1)).astype(int))
            for one, end in pairwise(edges.tolist()):
                lags = np.arange(one, end)
                # Of each lag others, so that together they are all over an age.
                begin = lags % self.every
                count = np.maximum(-(-(self.n_frames - lags - begin) // self.every), 0)
                start = np.repeat(np.cumsum(count) - count, count)
                first = np.repeat(begin, count) + self.every * (np.arange(start.size) - start)
                second = first + np.repeat(lags, count)
                age = np.searchsorted(self.sums, first + second, side="right") - 1
                inside = (age >= 0) & (age < widths.size)
                first, second, age = first[inside], second[inside], age[inside]
                above = first + second - limits[age]
                width = widths[age]
                # Finer at the beginning, where what ages is fastest.
                graded = (_CELLS * np.sqrt(above / width)).astype(int)
                yield k, first, second, age, np.where(width <= 4 * _CELLS, above // 4, graded)


class _Nodes(NamedTuple):
    """Pairs that stand for those of their bins, and what the bins hold.

    - `first`, `second`: frames; `bin`: number of the bin, that of its age slowest; `share`: part of
      the weight of the bin.
    - `weight`, `pairs`: of each bin; `mean`: of the map over it, 0 without one.
    """

    first: np.ndarray
    second: np.ndarray
    bin: np.ndarray
    share: np.ndarray
    weight: np.ndarray
    pairs: np.ndarray
    mean: np.ndarray


def _standing_for(
    first: np.ndarray, second: np.ndarray, weight: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs stand for all of their groups, and with what weight.

    Of each group the pairs next to its centre, the last before and the first behind it in age, with
    weights that have the same mean age.
    """
    mass = np.bincount(group, weight)
    sums = first + second
    lag, centre = (np.bincount(group, weight * one) / mass for one in (second - first, sums))
    behind = sums >= centre[group] - _SLACK
    away = (second - first - lag[group]) ** 2 + (sums - centre[group]) ** 2
    side = 2 * group + behind
    order = np.lexsort((away, side))
    kept = order[np.diff(side[order], prepend=-1) > 0]
    both = np.flatnonzero(np.diff(group[kept]) == 0)
    share = np.ones(kept.size)
    before, after = sums[kept[both]], sums[kept[both + 1]]
    share[both + 1] = np.clip((centre[group[kept[both]]] - before) / (after - before), 0.0, 1.0)
    share[both] = 1 - share[both + 1]
    used = share > _SLACK
    return kept[used], (share * mass[group[kept]])[used]


def _nodes(
    lattice: _Lattice, c2: np.ndarray | None = None, root: np.ndarray | None = None
) -> _Nodes:
    """The bins of a lattice, with the mean of a map whose pairs have the weights `root`²."""
    n_ages, n_lags = lattice.shape
    size = n_ages * n_lags
    weight, pairs, total = np.zeros(size), np.zeros(size, int), np.zeros(size)
    found = []
    for k, first, second, age, cell in lattice.bands():
        w = np.ones(first.size) if root is None else np.asarray(root[first, second], float) ** 2
        there = w > 0
        if not there.all():
            first, second, w = first[there], second[there], w[there]
            age, cell = age[there], cell[there]
        place = age * n_lags + k
        weight += np.bincount(place, w, size)
        pairs += lattice.every * np.bincount(place, minlength=size)
        if c2 is not None:
            total += np.bincount(place, w * np.asarray(c2[first, second], float), size)
        _, group = np.unique(age * (_CELLS + 1) + cell, return_inverse=True)
        kept, mass = _standing_for(first, second, w, group)
        found.append((first[kept], second[kept], place[kept], mass))
    if not found:
        raise DataError("there is no pair of frames in any bin of age and lag; check the edges")
    first, second, place, mass = (np.concatenate(one) for one in zip(*found, strict=True))
    order = np.argsort(place, kind="stable")
    share = mass[order] / weight[place[order]]
    mean = np.divide(total, weight, out=np.zeros(size), where=weight > 0)
    return _Nodes(first[order], second[order], place[order], share, weight, pairs, mean)


def _pooled(
    nodes: list[_Nodes],
    values: Float[np.ndarray, "angle bin"],
    roots: Float[np.ndarray, "angle bin"],
    ages: Float[np.ndarray, "age_edge"],
    lags: Float[np.ndarray, "lag_edge"],
    **beside: Any,
) -> PooledData:
    """Bins of positive root weight, those of one angle after the other, as points."""
    used = roots > 0
    # How a pair finds the point of its bin among those that are used.
    number = np.cumsum(used.reshape(-1)).reshape(used.shape) - 1
    kept = [used[a][one.bin] for a, one in enumerate(nodes)]

    def joined(name):
        return np.concatenate([getattr(one, name)[k] for one, k in zip(nodes, kept, strict=True)])

    angle, place = np.nonzero(used)
    age, lag = np.divmod(place, lags.size - 1)
    point = np.concatenate(
        [number[a][one.bin[k]] for a, (one, k) in enumerate(zip(nodes, kept, strict=True))]
    )
    return PooledData(
        values=values[used],
        first=joined("first"),
        second=joined("second"),
        angle=angle,
        root_weights=roots[used],
        bins=Bins(point, joined("share"), age, lag, ages, lags),
        **beside,
    )


def multi_tau(n_frames: int, channels: int = 8) -> Float[np.ndarray, "edge"]:
    """Edges [frames] of lags as a multi-tau correlator has them.

    Lags 1 to 2·`channels` one by one, then `channels` bins of twice the width again and again.

    >>> multi_tau(30, channels=4).tolist()
    [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 10.5, 12.5, 14.5, 16.5, 20.5, 24.5, 28.5, 29.5]
    """
    edges = [k + 0.5 for k in range(2 * channels + 1)]
    width = 2
    while edges[-1] < n_frames - 1:
        edges += [edges[-1] + (k + 1) * width for k in range(channels)]
        width *= 2
    return np.array([*(one for one in edges if one < n_frames - 1), n_frames - 0.5])


def equal_spacing(where: str, t: Float[np.ndarray, "frame"]) -> float:
    """The time between two frames [s], of which bins are made.

    **Raises:** `DataError` for frames that are not equally spaced.
    """
    if t.size < 2:
        raise DataError(f"{where}: t has {t.size} frame(s); a pair needs two.")
    increasing_times(where, "t", t)
    steps = np.diff(t)
    if not np.allclose(steps, steps.mean(), rtol=1e-6, atol=0):
        raise DataError(
            f"{where}: frames are {steps.min():.6g} to {steps.max():.6g} s apart; bins of age and "
            "lag are known for equally spaced frames only. Fit maps, or pooled points."
        )
    return float(steps.mean())


def binned(
    data: TwoTimeData,
    ages: int | Float[np.ndarray, "age_edge"] = 10,
    lags: Float[np.ndarray, "lag_edge"] | None = None,
) -> PooledData:
    """Maps on a grid of age and lag: each bin is the mean of c2 over its pairs of frames.

    A bin holds its lower edge, the last one both. Pairs count by their weights 1/σ², so that a bin
    has the σ of a mean of independent pairs.

    - `ages`: number of equal bins, or edges of (t1 + t2)/2 [s].
    - `lags`: edges of t2 − t1 [s]; by default those of `multi_tau`.

    **Raises:** `DataError` for frames that are not equally spaced, edges that do not increase, and
    bins that hold no pair.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> model, geometry = xe.Static(xe.PowerLawRate(1e4, 0.0, 0.0)), xe.Geometry(0.0054, [0.0])
    >>> key = jax.random.key(0)
    >>> maps = xe.simulate(model, 0.1 * np.arange(60), geometry, 0.2, noise=0.01, key=key)
    >>> bins = xe.data.binned(maps, ages=4)
    >>> maps.n_pairs, bins.n_pairs
    (1770, 108)
    """
    where = "binned"
    if not isinstance(data, TwoTimeData):
        raise DataError(f"{where}: {type(data).__name__} was given; give maps in memory.")
    t = np.asarray(data.t, float)
    dt = equal_spacing(where, t)
    if np.ndim(ages) == 0:
        ages = np.linspace(t[0], t[-1], int(given_scalar(where, "ages", ages) or 0) + 1)
    lags = multi_tau(t.size) * dt if lags is None else lags
    ages, lags = (_increasing(where, key, one) for key, one in (("ages", ages), ("lags", lags)))
    lattice = _Lattice.of(t.size, (ages - t[0]) / dt, lags / dt)
    c2, roots = np.asarray(data.c2), data.root_weights
    weights = [None if roots is None else np.asarray(roots[a]) for a in range(data.n_angles)]
    nodes = [_nodes(lattice, c2[a], root) for a, root in enumerate(weights)]
    origin = data.provenance
    note = f"Means over bins of {ages.size - 1} ages and {lags.size - 1} lags."
    return _pooled(
        nodes,
        np.stack([one.mean for one in nodes]),
        np.sqrt(np.stack([one.weight for one in nodes])),
        ages,
        lags,
        t=t,
        geometry=data.geometry,
        absolute_sigma=data.absolute_sigma,
        provenance=replace(origin, notes=(*origin.notes, note)),
    )


def _increasing(where: str, key: str, edges: Any) -> np.ndarray:
    edges = numbers(where, key, edges).reshape(-1)
    wrong = np.flatnonzero(~(np.diff(edges) > 0) | ~np.isfinite(edges[1:]))
    if edges.size < 2 or wrong.size or not np.isfinite(edges[0]):
        k = int(wrong[0]) if wrong.size else 0
        raise DataError(
            f"{where}: {key} must be two or more numbers that increase [s]; there are "
            f"{edges.size}, and {', '.join(f'{one:g}' for one in edges[k : k + 2])} among them."
        )
    return edges


def _edges(where: str, key: str, given: np.ndarray, count: int) -> tuple[np.ndarray, bool]:
    """Edges of `count` bins, and whether these were found from their centres.

    An edge is midway between two centres, in the logarithm where the steps of lags grow.
    """
    given = numbers(where, key, given).reshape(-1)
    if given.size == count + 1:
        return _increasing(where, key, given), False
    if given.size != count or count < 2:
        raise DataError(
            f"{where}: {key} has {given.size} values for {count} bins; give the centres of the "
            f"bins, {count}, or their edges, {count + 1}."
        )
    _increasing(where, key, given)
    steps = np.diff(given)
    inner = given[:-1] + 0.5 * steps
    if key == "lags":
        alike = np.isclose(steps[1:], steps[:-1], rtol=1e-2, atol=0)
        even = np.append(alike, False) | np.insert(alike, 0, False) | (given[:-1] <= 0)
        inner = np.where(even, inner, np.sqrt(np.maximum(given[:-1] * given[1:], 0.0)))
    # The outer halves of the outer bins are as wide as the inner ones.
    return np.array([2 * given[0] - inner[0], *inner, 2 * given[-1] - inner[-1]]), True


def _grids(
    where: str, names: list[str], stored: list[SlicedMap], shape: tuple[int, ...] | None = None
) -> Float[np.ndarray, "angle age lag"]:
    """Numbers of some maps, which must be of one shape.

    **Raises:** `DataError` naming the map that is of another one.
    """
    shape = stored[0].shape if shape is None else shape
    for name, one in zip(names, stored, strict=True):
        if len(one.shape) != 2 or one.shape != shape:
            wanted = "(age, lag)" if len(shape) != 2 else shape
            raise DataError(
                f"{where}: {name} has shape {one.shape}; {wanted} is needed, one number for each "
                "bin."
            )
    whole = slice(None)
    read = zip(names, stored, strict=True)
    return np.stack([numbers(where, name, one[whole, whole]) for name, one in read])


_NOT_OF_BINS = {
    "frames": lambda s: s.start_frame != 1 or s.end_frame != -1,
    "bad_frames": lambda s: bool(s.listed_frames),
    "pair_mask": lambda s: s.pair_mask is not None,
}


def bins_from(
    raw: RawMaps,
    selection: Selection,
    *,
    dt: float | None = None,
    gap: float | None = None,
    sigma: Any = None,
    baseline: Baseline = "auto",
    symmetrise: Any = None,
) -> PooledData:
    """Bins of age and lag from what a file or dictionary holds; arguments as in `load_bins`.

    **Raises:** `DataError` for everything that makes them unusable, and for what bins cannot have.
    """
    where = raw.where
    sigma, gap = checked_sigma(where, sigma), given_scalar(where, "gap", gap)
    asked = [name for name, is_asked in _NOT_OF_BINS.items() if is_asked(selection)]
    asked += ["symmetrise"] * (symmetrise is not None)
    asked += ['sigma = "mad"'] * isinstance(sigma, str)
    if asked:
        raise DataError(
            f"{where}: {' and '.join(asked)} is for maps of two times, and these are bins of age "
            "and lag, whose frames are added up already; leave it out."
        )
    baseline = checked_baseline(where, baseline)
    maps = choose_places(raw, selection)
    q, merged = one_q(raw, maps, selection)
    raw, selection = counted_from_start(raw, selection)
    assert raw.ages is not None
    assert raw.lags is not None
    values = _grids(where, [raw.names[k] for k in maps], [raw.maps[k] for k in maps])
    ages, age_guess = _edges(where, "ages", raw.ages, values.shape[1])
    lags, lag_guess = _edges(where, "lags", raw.lags, values.shape[2])
    given_dt = dt
    t, dt, how = _times(raw, selection, dt, ages, lags)
    if raw.t is None:
        ages = ages + t[0]
    nodes = _nodes(_Lattice.of(t.size, (ages - t[0]) / dt, lags / dt, _ENOUGH))
    flat = values.reshape(maps.size, -1)
    spread, absolute = np.ones(()), sigma is not None
    if raw.sigma is not None and sigma is None:
        names = [f"sigma of {raw.names[k]}" for k in maps]
        spread = _grids(where, names, [raw.sigma[k] for k in maps], values.shape[1:])
        spread, absolute = spread.reshape(flat.shape), raw.absolute_sigma
    elif sigma is not None:
        spread = np.asarray(sigma, float)
    # Means over frames with themselves alone, in which shot noise is.
    alone = np.tile((lags[1:] <= dt * (1 - _SLACK)) & (lags[:-1] <= 0), ages.size - 1)
    known = np.isfinite(flat) & ~alone
    stray = np.count_nonzero(known & (nodes.pairs == 0))
    if stray > _STRAY * np.count_nonzero(known):
        raise DataError(
            f"{where}: {stray} of {np.count_nonzero(known)} bins with a number hold no pair of "
            f"{t.size} frames that are {dt:g} s apart; check dt, the ages and the lags [s]."
        )
    used = known & (nodes.pairs > 0) & _asked(selection, ages, lags, dt)
    names = [raw.names[k] for k in maps]
    filled, remarks = _filled(values, used.reshape(values.shape), names, selection)
    used &= ~filled.reshape(used.shape)
    lag_frames = np.tile(np.rint(0.5 * (lags[:-1] + lags[1:]) / dt).astype(int), ages.size - 1)

    def levels() -> list[Levels | None]:
        return [
            levels_of(one[kept], lag_frames[kept]) for one, kept in zip(flat, used, strict=True)
        ]

    found = baseline_of(raw.baseline, baseline, levels)
    flat = flat + found.added
    if not used.any():
        raise DataError(f"{where}: no bin is left after masks and NaN; widen the selection.")
    spread = np.broadcast_to(spread, flat.shape)
    positive_sigma(where, "sigma", spread[used])
    roots = np.divide(1.0, spread, out=np.zeros(flat.shape), where=used)
    wrong_q = improbable_q(raw, q, selection)
    notes = [*raw.remarks, *merged, how, *remarks_on_places(raw, maps), *wrong_q, *remarks]
    notes += [found.remark] if found.remark else []
    if age_guess or lag_guess:
        what = " and ".join(["ages"] * age_guess + ["lags"] * lag_guess)
        notes.append(f"Only centres of the {what} are known; edges were taken midway between them.")
    if raw.sigma is None and sigma is None:
        roots = roots * np.sqrt(nodes.pairs)
        notes.append("No sigma is known: bins weigh by the pairs of frames in them.")
    if not used.all():
        out = used.size - used.sum()
        notes.append(f"{out} of {used.size} bins are empty or left out, and count for nothing.")
    return _pooled(
        [nodes] * maps.size,
        np.where(used, flat, 0.0),
        roots,
        ages,
        lags,
        t=t,
        geometry=Geometry(q=q, phi=raw.phi[maps], gap=gap_of(raw, gap)),
        absolute_sigma=absolute,
        provenance=Provenance(
            path=raw.path,
            layout=raw.layout,
            sha256=raw.checksum(),
            keys=raw.keys,
            frames=(1, t.size),
            dt=dt,
            azimuths=raw.azimuths,
            baseline_guessed=found.guessed,
            doubts=doubts_of(raw, bool(wrong_q), found, given_dt, baseline),
            notes=tuple(notes),
        ),
    )


def _filled(
    values: Float[np.ndarray, "angle age lag"],
    used: Bool[np.ndarray, "angle age lag"],
    names: list[str],
    selection: Selection,
) -> tuple[Bool[np.ndarray, "angle age lag"], list[str]]:
    """Bins with numbers that were not measured, of those that are to be left out, and remarks."""
    out, remarks, masked = np.zeros(values.shape, bool), [], selection.bad_frames == "auto"
    for k, name in enumerate(names):
        for fill in fills_of(values[k], used[k], pairs=False):
            out[k] |= masked & used[k] & (values[k] == fill.value)
            remarks.append(
                f"{name} holds {fill.value:.6g} in {fill.held} of its bins, and no noise: not "
                f"measured, {left_out(masked)}."
            )
    return out, remarks


def _times(
    raw: RawMaps,
    selection: Selection,
    dt: float | None,
    ages: np.ndarray,
    lags: np.ndarray,
) -> tuple[np.ndarray, float, str]:
    """Times of the frames behind bins [s], their distance, and how they were found."""
    where = raw.where
    dt = given_scalar(where, "dt", dt)
    if raw.t is not None:
        refuse(raw, raw.time_name, "times in seconds")
        if selection.time_origin not in (None, 0.0):
            raise DataError(
                f"{where}: {raw.time_name} are used as they are; leave time_origin out."
            )
        spacing = equal_spacing(where, raw.t)
        if dt is not None:
            agreeing(where, raw.time_name, spacing, dt, "s")
        return raw.t, spacing, f"The times {raw.time_name} are those of {raw.t.size} frames."
    if dt is None:
        refuse(raw, raw.time_name, "dt [s] (data.dt in a configuration)")
        if raw.frame_time is None:
            raise DataError(
                f"{where}: no frame time in {raw.time_name}; give dt [s]: bins are means over "
                "pairs of frames."
            )
        dt = raw.frame_time
    elif raw.frame_time is not None and raw.time_name not in raw.refused:
        agreeing(where, raw.time_name, raw.frame_time, dt, "s")
    positive(where, "dt", dt, "s")
    count = int(np.floor(max(ages[-1], lags[-1]) / dt + _SLACK)) + 1
    if not 2 <= count <= _MOST_FRAMES:
        raise DataError(
            f"{where}: the bins reach to {max(ages[-1], lags[-1]):g} s, which makes {count} frames "
            f"of {dt:g} s; check dt, the ages and the lags [s]."
        )
    origin = 0.0 if selection.time_origin is None else selection.time_origin
    return origin + dt * np.arange(count), dt, f"{count} frames of {dt:g} s, as far as bins reach."


def _asked(selection: Selection, ages: np.ndarray, lags: np.ndarray, dt: float) -> np.ndarray:
    """Which bins have their centre among the ages and lags that are asked for."""
    age, lag = (0.5 * (one[:-1] + one[1:]) for one in (ages, lags))
    low, high = selection.age_range or (-np.inf, np.inf)
    most = np.inf if selection.max_lag is None else selection.max_lag
    first = selection.min_lag if selection.min_lag > 1 else -np.inf
    keep = ((age >= low) & (age <= high))[:, None] & ((lag >= first * dt) & (lag <= most * dt))
    return keep.reshape(-1)
