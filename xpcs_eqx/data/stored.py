"""Two-time maps that stay in their file: what is small is known, maps are read band by band."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Unpack

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float

from ..errors import DataError
from .bands import MapSource
from .chosen import Chosen
from .load import Opened, Reading, maps_by_q, open_maps
from .noise import mad_sigma
from .selection import PairRule
from .survey import MapSurvey, at_hand, root_weights_of, survey_map, surveyed, whole_map
from .two_time import (
    ENOUGH,
    AbstractTwoTime,
    Geometry,
    PooledData,
    Provenance,
    Sample,
    TwoTimeData,
    is_mask,
)

# Pairs of the sample over all angles: it travels with the data.
_SAMPLE = 4 * ENOUGH


class StoredTwoTime(AbstractTwoTime):
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
    t: Float[np.ndarray | jax.Array, " frame"]
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
    def n_pairs(self) -> int:
        """Number of unordered pairs i < j that count, over all angles."""
        return sum(self.pairs)

    @property
    def masked_pairs(self) -> int:
        """Number of unordered pairs that count for nothing: NaN, bad frames, lag and age limits."""
        n = self.n_frames
        return self.n_angles * (n * (n - 1) // 2) - self.n_pairs

    def angle(self, number: int) -> TwoTimeData:
        """The map of one angle in memory, as data of a single angle.

        **Raises:** `DataError` when it cannot be read.
        """
        source, n = self.source, self.n_frames
        whole, keep = map_of(source, self.rule, number)
        weights = None
        if source.sigma_halves is not None:
            with source.reader() as reader:
                sigma = reader.sigma_band(number, slice(0, n))
            weights = root_weights_of(keep, sigma, whole.dtype)[None]
        elif self.root_weights is not None or self.pairs[number] < n * (n - 1) // 2:
            root = 1.0 if self.root_weights is None else self.root_weights[number]
            weights = (keep * root).astype(whole.dtype)[None]
        return TwoTimeData(
            c2=whole[None],
            t=self.t,
            geometry=self.geometry.angle(number),
            root_weights=weights,
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
    with source.reader() as reader:
        band = reader.band(number, slice(0, source.n_frames))
    return whole_map(band, rule, source.mask_of(number))


def open_stored(path: str | os.PathLike[str], **how: Unpack[Reading]) -> StoredTwoTime:
    """Two-time maps at one q that stay in an HDF5 file and are read band by band during a fit.

    Arguments as in `load`, for every HDF5 layout. The file is read through once, map by map, for
    the same checks; what stays in memory does not grow with the maps but for a `pair_mask`.
    Without `checksum` the file is not read a second time for its SHA-256.

    **Raises:** `DataError` as `load`, and for NPZ and NPY files, which cannot be read in parts.
    """
    with _open_in_parts(path, how) as file:
        return _describe(file.chosen())


def open_stored_joint(
    path: str | os.PathLike[str], **how: Unpack[Reading]
) -> tuple[StoredTwoTime, ...]:
    """One data set for each selected q of a file, as of `load_joint`, that stays in it.

    Arguments and errors as in `open_stored`.
    """
    with _open_in_parts(path, how) as file:
        return tuple(_describe(file.chosen(maps=maps)) for maps in maps_by_q(file))


@contextmanager
def _open_in_parts(path: str | os.PathLike[str], how: Reading) -> Iterator[Opened]:
    how.setdefault("checksum", False)
    with open_maps(path, **how) as file:
        raw = file.raw
        if raw.place.layout is None:
            raise DataError(
                f"{raw.path}: {'NPY' if raw.layout == 'npy' else 'NPZ'} files cannot be read in "
                "parts. Use load, or write the maps to HDF5 once with write_own."
            )
        yield file


def _describe(chosen: Chosen) -> StoredTwoTime:
    n_angles = chosen.n_maps
    enough = min(ENOUGH, _SAMPLE / n_angles)

    def survey(chosen: Chosen, position: int) -> MapSurvey:
        window, sigma = at_hand(chosen.map(position)), chosen.sigma_map(position)
        sigma = None if sigma is None else at_hand(sigma)
        return survey_map(chosen, position, window, sigma, enough)

    chosen, found = surveyed(chosen, survey)
    roots = chosen.constant_root_weights(lambda: np.array([one.noise for one in found]))
    if chosen.stored_sigma:
        largest = 1.0 / min(one.smallest_sigma for one in found)
    else:
        largest = 1.0 if roots is None else float(np.max(roots))
    pairs = tuple(one.pairs for one in found)
    return StoredTwoTime(
        source=_source(chosen, found),
        t=chosen.t,
        geometry=chosen.geometry,
        rule=chosen.rule,
        root_weights=None if roots is None else roots.astype(np.float64),
        largest_root_weight=largest,
        pairs=pairs,
        diagonal=chosen.diagonals([(one.diagonal, one.frames) for one in found]),
        side_diagonal=np.stack([one.side for one in found]),
        sample=Sample(
            np.concatenate([one.values for one in found]),
            np.concatenate([one.lags for one in found]).astype(np.int32),
            np.repeat(np.arange(n_angles), [one.values.size for one in found]),
        ),
        absolute_sigma=chosen.absolute_sigma,
        provenance=chosen.provenance(
            sum(one.halved for one in found), sum(pairs), [one.asymmetry for one in found]
        ),
    )


def _source(chosen: Chosen, found: list[MapSurvey]) -> MapSource:
    raw, whole = chosen.raw, chosen.raw.maps[chosen.maps[0]].shape
    return MapSource(
        path=os.path.abspath(raw.path),
        place=raw.place,
        names=tuple(chosen.name(position) for position in range(chosen.n_maps)),
        maps=tuple(chosen.maps.tolist()),
        shape=(whole[0], whole[1]),
        frames=(chosen.frames.start, chosen.frames.stop),
        halves=tuple(one.half for one in found),
        sigma_halves=tuple(one.sigma_half for one in found if one.sigma_half is not None) or None,
        dtype=chosen.dtype.name,
        baseline=chosen.baseline.added,
        pair_mask=chosen.pair_mask,
        sha256=raw.checksum(),
        fills=chosen.fills,
    )


def weighted(data: TwoTimeData | StoredTwoTime | PooledData) -> bool:
    """Whether residuals are in units of sigma: weights of zero and one only say what counts.

    Weights of points are such units where sigma is known absolutely.
    """
    if isinstance(data, PooledData):
        return data.absolute_sigma
    if isinstance(data, StoredTwoTime):
        return data.source.sigma_halves is not None or data.largest_root_weight != 1
    return data.root_weights is not None and not is_mask(data.root_weights)


def noise_by_angle(data: TwoTimeData | StoredTwoTime) -> Float[np.ndarray, "angle"]:
    """Standard deviation of c2 at each angle [c2], by `mad_sigma`.

    **Raises:** `DataError` as `mad_sigma`.
    """
    if isinstance(data, StoredTwoTime):
        maps = (map_of(data.source, data.rule, a) for a in range(data.n_angles))
        return np.array([mad_sigma(*one) for one in maps])
    weights = data.root_weights
    keep = [None] * data.n_angles if weights is None else np.asarray(weights) > 0
    return np.array([mad_sigma(*one) for one in zip(np.asarray(data.c2), keep, strict=True)])
