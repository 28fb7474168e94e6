"""Two-time maps that stay in their file: what is small is known, maps are read band by band."""

import os
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from ..errors import DataError
from .assemble import Sigma, known_estimate, masked_note, noise_of_maps, sensible_diagonal
from .bands import Half, MapSource
from .checks import positive
from .layouts import READERS
from .layouts.raw import RawMaps
from .load import counted, open_maps, prepared
from .noise import maps_sigma
from .place import Place, kept_dtype, placed
from .selection import PairRule, Selection, no_pair_left, pair_rule
from .survey import MapSurvey, survey_map
from .two_time import ENOUGH, Geometry, Provenance, Sample, TwoTimeData, is_mask

# Pairs of the sample over all angles: it travels with the data.
_SAMPLE = 4 * ENOUGH


class StoredTwoTime(eqx.Module):
    """A stack of two-time correlation maps in an HDF5 file, one for each angle.

    A plain value: it holds no open file and can be sent to other processes. It means the same as
    the `TwoTimeData` that `load` makes of the file.

    - `source`: where the maps are.
    - `t`: frame times [s]; `geometry`: q, azimuths and gap.
    - `rule`: pairs that bad frames, lags and ages leave; `None` for all.
    - `root_weights`: 1/sigma by angle; `None` when every pair counts with weight one or sigma is
        stored pair by pair. `largest_root_weight`: the largest of any pair.
    - `pairs`: number of pairs that count, by angle.
    - `diagonal`: raw diagonal, NaN where unknown; `side_diagonal`: c2 of neighbours, 0 if masked.
    - `sample`: some pairs spread over the maps.
    - `absolute_sigma`, `provenance`: as in `TwoTimeData`.
    """

    source: MapSource
    t: Float[np.ndarray, " frame"]
    geometry: Geometry
    rule: PairRule | None
    root_weights: Float[np.ndarray, " angle"] | None
    largest_root_weight: float
    pairs: tuple[int, ...] = eqx.field(static=True)
    diagonal: Float[np.ndarray, "angle frame"]
    side_diagonal: Float[np.ndarray, "angle neighbours"]
    sample: Sample
    absolute_sigma: bool = eqx.field(static=True, default=False)
    provenance: Provenance = eqx.field(static=True, default=Provenance())

    @property
    def n_angles(self) -> int:
        """Number of maps."""
        return len(self.source.maps)

    @property
    def n_frames(self) -> int:
        """Number of frames along one axis of a map."""
        return self.source.n_frames

    @property
    def n_pairs(self) -> int:
        """Number of unordered pairs i < j that count, over all angles."""
        return sum(self.pairs)

    @property
    def masked_pairs(self) -> int:
        """Number of unordered pairs that count for nothing: NaN, bad frames, lag and age limits."""
        n = self.n_frames
        return self.n_angles * (n * (n - 1) // 2) - self.n_pairs

    @property
    def dt(self) -> np.floating:
        """Mean time between two frames [s]."""
        return (self.t[-1] - self.t[0]) / (self.n_frames - 1)

    def angle(self, number: int) -> TwoTimeData:
        """The map of one angle in memory, as data of a single angle.

        **Raises:** `DataError` when it cannot be read.
        """
        source = self.source
        whole, keep = map_of(source, self.rule, number)
        sigma = None
        if source.sigma_halves is not None:
            with source.reader() as reader:
                sigma = reader.sigma_band(number, slice(0, self.n_frames))
        pairs = ~np.eye(self.n_frames, dtype=bool)
        weights = None
        if sigma is not None:
            weights = np.zeros_like(whole)
            np.divide(1.0, sigma, out=weights, where=np.triu(keep), casting="same_kind")
            weights = weights + weights.T
        elif self.root_weights is not None or not np.array_equal(keep, pairs):
            root = 1.0 if self.root_weights is None else self.root_weights[number]
            weights = (keep * root).astype(whole.dtype)
        return TwoTimeData(
            c2=whole[None],
            t=self.t,
            geometry=Geometry(
                q=self.geometry.q,
                phi=np.asarray(self.geometry.phi)[number : number + 1],
                gap=self.geometry.gap,
            ),
            root_weights=None if weights is None else weights[None],
            diagonal=self.diagonal[number : number + 1],
            absolute_sigma=self.absolute_sigma,
            provenance=self.provenance,
        )


def map_of(
    source: MapSource, rule: PairRule | None, number: int
) -> tuple[Float[np.ndarray, "frame frame"], Bool[np.ndarray, "frame frame"]]:
    """The whole map of one angle with masked entries at 0, and which pairs count; symmetric both.

    **Raises:** `DataError` when it cannot be read.
    """
    n = source.n_frames
    index = np.arange(n)
    with source.reader() as reader:
        c2 = np.array(reader.band(number, slice(0, n)))
    keep = np.isfinite(c2) & (index[:, None] < index[None, :])
    if rule is not None:
        keep &= rule(index[:, None], index[None, :])
    mask = source.mask_of(number)
    keep = keep if mask is None else keep & mask
    upper = np.where(keep, c2, 0)
    whole = upper + upper.T
    np.fill_diagonal(whole, np.nan_to_num(np.diagonal(c2)))
    return whole, keep | keep.T


def open_stored(
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    selection: Selection = Selection(),  # noqa: B008
    dt: float | None = None,
    gap: float | None = None,
    sigma: Sigma = None,
    q: float | None = None,
    time_origin: float | None = None,
    checksum: bool = False,
) -> StoredTwoTime:
    """Two-time maps at one q that stay in an HDF5 file and are read band by band during a fit.

    Arguments as in `load`, for every HDF5 layout. The file is read through once, map by map, for
    the same checks; what stays in memory does not grow with the maps but for a `pair_mask`.
    Without `checksum` the file is not read a second time for its SHA-256.

    **Raises:** `DataError` as `load`, and for NPZ and NPY files, which cannot be read in parts.
    """
    selection = prepared(selection, time_origin, q)
    with open_maps(path, layout=layout, q=q, counted=dt is None, checksum=checksum) as raw:
        if raw.layout not in READERS:
            raise DataError(
                f"{raw.path}: {raw.layout.upper()} files cannot be read in parts. Use load, or "
                "write the maps to HDF5 once with write_own."
            )
        return _describe(raw, counted(raw, selection), dt, gap, sigma)


def _describe(
    raw: RawMaps, selection: Selection, dt: float | None, gap: float | None, sigma: Sigma
) -> StoredTwoTime:
    place = placed(raw, selection, dt, gap)
    where, n, n_angles = raw.where, place.t.size, place.chosen.size
    rule = pair_rule(where, selection, place.t, place.frames)
    if isinstance(sigma, str):
        known_estimate(where, sigma)
    elif sigma is not None:
        positive(where, "sigma", float(sigma), "c2")
    stored = sigma is None and raw.read_sigma is not None
    found = [
        survey_map(
            raw,
            place,
            position,
            selection,
            rule,
            enough=min(ENOUGH, _SAMPLE / n_angles),
            estimate_noise=isinstance(sigma, str),
            use_sigma=stored,
        )
        for position in range(n_angles)
    ]
    if all(one.ruled == 0 for one in found):
        raise no_pair_left(where, selection, n)
    roots, largest = _root_weights(raw, sigma, stored, found)
    pairs = tuple(one.pairs for one in found)
    used, halves = sum(pairs), sum(one.halved for one in found)
    notes = [f"{halves} of {len(found)} maps were stored as one half."] if halves else []
    if raw.baseline:
        notes.append(f"{raw.baseline:g} was added: the maps are stored without their baseline.")
    notes.extend(masked_note(n_angles * (n * (n - 1) // 2) - used, used))
    absolute = raw.absolute_sigma if stored else isinstance(sigma, float | int)
    return StoredTwoTime(
        source=_source(raw, place, selection, found),
        t=place.t,
        geometry=place.geometry,
        rule=rule,
        root_weights=roots,
        largest_root_weight=largest,
        pairs=pairs,
        diagonal=_diagonal(raw, place, found),
        side_diagonal=np.stack([one.side for one in found]),
        sample=Sample(
            np.concatenate([one.values for one in found]),
            np.concatenate([one.lags for one in found]).astype(np.int32),
            np.repeat(np.arange(n_angles), [one.values.size for one in found]),
        ),
        absolute_sigma=absolute,
        provenance=place.provenance(raw, notes),
    )


def _root_weights(
    raw: RawMaps, sigma: Any, stored: bool, found: list[MapSurvey]
) -> tuple[np.ndarray | None, float]:
    """1/sigma by angle in the precision of the maps, as in memory, and the largest of any pair."""
    if stored:
        return None, 1.0 / min(one.smallest_sigma for one in found)
    if sigma is None:
        return None, 1.0
    if isinstance(sigma, str):
        values = np.array([one.noise for one in found])
        noise_of_maps(raw.where, values)
    else:
        values = np.full(len(found), float(sigma))
    inverse = (1.0 / values).astype(kept_dtype(raw)).astype(np.float64)
    return inverse, float(np.max(inverse))


def _diagonal(raw: RawMaps, place: Place, found: list[MapSurvey]) -> np.ndarray:
    if raw.read_diagonal is None:
        plain = np.stack([one.diagonal for one in found]) - raw.baseline
        return sensible_diagonal(plain) + raw.baseline
    read = raw.read_diagonal
    stored = [np.asarray(read(int(i), place.frames), np.float64) for i in place.chosen]
    return np.stack(stored) + raw.baseline


def _source(raw: RawMaps, place: Place, selection: Selection, found: list[MapSurvey]) -> MapSource:
    mask = selection.pair_mask
    if mask is not None:
        mask = np.asarray(mask)
        if mask.ndim == 3 and mask.shape[0] not in (1, place.chosen.size):
            mask = mask[place.chosen]
        if mask.shape[-1] != place.t.size:
            mask = mask[..., place.frames, place.frames]
        mask = mask.astype(bool)
    sigma_halves: tuple[Half, ...] = tuple(
        one.sigma_half for one in found if one.sigma_half is not None
    )
    return MapSource(
        path=os.path.abspath(raw.path),
        layout=raw.layout,
        names=tuple(raw.names[i] for i in place.chosen),
        maps=tuple(int(i) for i in place.chosen),
        shape=(raw.shapes[0][0], raw.shapes[0][1]),
        frames=(place.frames.start, place.frames.stop),
        halves=tuple(one.half for one in found),
        sigma_halves=sigma_halves or None,
        dtype=kept_dtype(raw).name,
        baseline=float(raw.baseline),
        pair_mask=mask,
        sha256=raw.sha256,
    )


def weighted(data: TwoTimeData | StoredTwoTime) -> bool:
    """Whether residuals are in units of sigma: weights of zero and one only say what counts."""
    if isinstance(data, StoredTwoTime):
        return data.source.sigma_halves is not None or data.largest_root_weight != 1
    return data.root_weights is not None and not is_mask(data.root_weights)


def noise_by_angle(data: TwoTimeData | StoredTwoTime) -> Float[np.ndarray, "angle"]:
    """Standard deviation of c2 at each angle [c2], by `mad_sigma`.

    **Raises:** `DataError` as `mad_sigma`.
    """
    if isinstance(data, StoredTwoTime):
        maps = (data.angle(a) for a in range(data.n_angles))
        return np.concatenate([noise_by_angle(one) for one in maps])
    weights = data.root_weights
    return maps_sigma(np.asarray(data.c2), None if weights is None else np.asarray(weights) > 0)
