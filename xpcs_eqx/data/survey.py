"""One pass over the maps of a file: the checks that a reading into memory makes, and what is kept.

Only one map, or a strip of rows of a large one, is in memory at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .assemble import nothing_left
from .bands import Half, band_of
from .checks import positive_sigma
from .half import Triangle, stored_triangle
from .layouts.raw import RawMaps
from .noise import noise_lags, sigma_of_lines
from .place import Place, kept_dtype
from .selection import PairRule, Selection, mask_of_map
from .two_time import row_step

# A map below this is read in one go [bytes].
_WHOLE = 64 * 2**20
# Entries of a strip of rows.
_STRIP = 2**20


@dataclass(frozen=True)
class MapSurvey:
    """What one pass found in one map.

    - `half`: where the pairs are; `sigma_half`: the same for a stored sigma.
    - `halved`: whether only one triangle is stored.
    - `pairs`: number of pairs that count; `ruled`: number that the rule alone leaves.
    - `diagonal`, `side`: main and first side diagonal, the latter 0 where masked.
    - `values`, `lags`: a sample of pairs that count.
    - `noise`: robust standard deviation when it was asked for; `smallest_sigma`: of the stored one.
    """

    half: Half
    halved: bool
    sigma_half: Half | None
    pairs: int
    ruled: int
    diagonal: np.ndarray
    side: np.ndarray
    values: np.ndarray
    lags: np.ndarray
    noise: float | None
    smallest_sigma: float


class _View:
    """A map in a file as far as slices go: only what is indexed is read."""

    def __init__(self, read: Any, index: int, frames: slice):
        self.read, self.index, self.low = read, index, frames.start
        n = frames.stop - frames.start
        self.shape = (n, n)

    def __getitem__(self, key: tuple[Any, Any]) -> Any:
        if not isinstance(key[0], slice):
            i, j = (int(k) for k in key)
            return self[i : i + 1, j : j + 1][0, 0]
        rows, columns = (slice(k.start + self.low, k.stop + self.low) for k in key)
        return np.asarray(self.read(self.index, rows, columns))


def _view(read: Any, index: int, frames: slice, itemsize: int) -> Any:
    view = _View(read, index, frames)
    n = view.shape[0]
    return view[slice(0, n), slice(0, n)] if n * n * itemsize <= _WHOLE else view


def _strips(n: int) -> Iterator[slice]:
    height = max(1, _STRIP // n)
    for low in range(0, n, height):
        yield slice(low, min(low + height, n))


def survey_map(
    raw: RawMaps,
    place: Place,
    position: int,
    selection: Selection,
    rule: PairRule | None,
    *,
    enough: float,
    estimate_noise: bool,
    use_sigma: bool,
) -> MapSurvey:
    """Check one of the chosen maps and keep what is small.

    - `enough`: number of pairs of the sample.
    - `estimate_noise`, `use_sigma`: whether to estimate the noise, to check the stored sigma.

    **Raises:** `DataError` as for maps in memory: asymmetric, without a usable pair, with a sigma
    that is not positive.
    """
    index, frames, n = int(place.chosen[position]), place.frames, place.t.size
    kept, where, name = kept_dtype(raw), raw.where, raw.names[index]
    view = _view(raw.read, index, frames, raw.dtype.itemsize)
    triangle: Triangle = stored_triangle(where, name, view, raw.storage)
    full = triangle == "full"
    half: Half = "both" if triangle == "full" else triangle
    sigma, sigma_half, sigma_name = None, None, f"{raw.sigma_name} of {name}"
    if use_sigma:
        sigma = _view(raw.read_sigma, index, frames, 8)
        found = stored_triangle(where, sigma_name, sigma, raw.storage)
        sigma_half: Half | None = "lower" if found == "lower" else "upper"
    counts = (place.chosen.size, raw.q.size)
    user = mask_of_map(where, selection, position, index, counts, raw.shapes[0][0], frames)
    step = row_step(n, enough)
    diagonal, side = np.empty(n), np.zeros(n - 1)
    chosen_lags = noise_lags(n) if estimate_noise else np.empty(0, int)
    lines = [np.full(n - lag, np.nan) for lag in chosen_lags]
    sampled, lags = [], []
    pairs = ruled = 0
    differs, smallest = False, np.inf
    for rows in _strips(n):
        i, j = np.arange(rows.start, rows.stop)[:, None], np.arange(rows.start, n)[None, :]
        values = np.asarray(band_of(lambda r, c: view[r, c], half, rows, n), kept)
        values = values + kept.type(raw.baseline)
        finite = np.isfinite(values)
        allowed = i < j
        if full:
            here = np.isfinite(view[rows, slice(rows.start, n)])
            differs = differs or bool(np.any((here != finite) & allowed))
        if rule is not None:
            allowed &= rule(i, j)
        ruled += int(np.count_nonzero(allowed))
        if user is not None:
            allowed &= user[rows, rows.start :]
        usable = finite & allowed
        pairs += int(np.count_nonzero(usable))
        diagonal[rows] = np.diagonal(values)
        near = np.where(np.diagonal(usable, 1), np.diagonal(values, 1), 0.0)
        side[rows.start : rows.start + near.size] = near
        first = -rows.start % step
        for k in range(first, rows.stop - rows.start, step):
            sampled.append(values[k][usable[k]])
            lags.append((j[0] - i[k, 0])[usable[k]])
        for line, lag in zip(lines, chosen_lags, strict=True):
            along = np.where(np.diagonal(usable, lag), np.diagonal(values, lag), np.nan)
            line[rows.start : rows.start + along.size] = along
        if sigma is not None and sigma_half is not None:
            spread = band_of(lambda r, c: sigma[r, c], sigma_half, rows, n)[usable]
            positive_sigma(where, sigma_name, spread)
            smallest = min(smallest, float(np.min(spread, initial=np.inf)))
    if pairs == 0 and (ruled or rule is None):
        raise nothing_left(raw, index)
    return MapSurvey(
        half="upper" if full and not differs else half,
        halved=not full,
        sigma_half=sigma_half,
        pairs=pairs,
        ruled=ruled,
        diagonal=diagonal,
        side=side,
        values=np.concatenate(sampled),
        lags=np.concatenate(lags),
        noise=sigma_of_lines(lines, n) if estimate_noise and pairs else None,
        smallest_sigma=smallest,
    )
