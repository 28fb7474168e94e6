"""The maps of a fit as plain arrays: data, fitted surface, residuals, with masked pairs as NaN."""

from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..compiling import quick_jit
from ..data import is_mask
from ..errors import FitError
from ..fitting import Fit
from ..objective import MapTiles, PackedMaps, on_one_device
from ..physics import correlation_rows

# Above this many entries float32 halves what a result takes on disk and in memory.
_SINGLE = 4_000_000
# Entries of a band of rows: enough that a loop over bands costs nothing.
_BAND = 2**20


@dataclass(frozen=True, repr=False)
class FittedMaps:
    """What was fitted and what came out, over all frames and angles.

    - `c2`: data; `fitted`: surface as the solver saw it, offset + contrast on the diagonal.
    - `used`: whether a pair counted; never true on the diagonal.
    - `residual`: c2 − fitted where `used`, else NaN.
    - `root_weights`: 1/sigma, or None when every pair weighed the same.
    - `t` [s], `phi` [deg], `q` [1/Å], `gap` [Å].
    - `n_angles`: angles of the fit, of which these may be some; `step`: of every how many frames.
    """

    c2: Float[np.ndarray, "angle frame frame"]
    fitted: Float[np.ndarray, "angle frame frame"]
    residual: Float[np.ndarray, "angle frame frame"]
    used: np.ndarray
    root_weights: Float[np.ndarray, "angle frame frame"] | None
    t: Float[np.ndarray, "frame"]
    phi: Float[np.ndarray, "angle"]
    q: float
    gap: float
    n_angles: int
    step: int = 1

    def __repr__(self) -> str:
        return eqx.tree_pformat(self)

    @property
    def weighted(self) -> Float[np.ndarray, "angle frame frame"]:
        """Residuals times root weights, NaN where no pair counted."""
        return self.residual if self.root_weights is None else self.residual * self.root_weights


def has_maps(fit: Fit) -> bool:
    """Whether the data of a fit are maps in memory; pooled points and stored maps are not."""
    return isinstance(fit.objective.term.tiles, MapTiles | PackedMaps)


@quick_jit
def _fitted_rows(model, t, geometry, contrast, offset, rows):
    return offset + contrast * correlation_rows(model, t, geometry, rows)[0]


def rows_of_a_band(n_frames: int) -> int:
    """Rows of a map that are worked on at a time."""
    return min(max(1, _BAND // n_frames), n_frames)


def fitted_rows(fit: Fit, angle: int, rows: slice, height: int) -> Float[np.ndarray, "row frame"]:
    """Some rows, at most `height`, of the fitted surface of one angle."""
    term = fit.objective.term
    one = np.asarray(term.geometry.phi)[angle : angle + 1]
    geometry = eqx.tree_at(lambda g: g.phi, term.geometry, one)
    # All bands have one shape, so that one compilation serves them.
    index = np.minimum(rows.start + np.arange(height), term.t.shape[0] - 1)
    scaling = (fit.contrast[angle], fit.offset[angle])
    found = _fitted_rows(fit.model, term.t, geometry, *scaling, index)
    return np.asarray(found)[: rows.stop - rows.start]


def fitted_maps(fit: Fit) -> FittedMaps:
    """The maps of a fit; float32 when there are more than four million entries.

    Memory is that of what is returned and of a band of rows.

    **Raises:** `FitError` when the data are not maps in memory.
    """
    term = fit.objective.term
    tiles = on_one_device(term.tiles)
    if not isinstance(tiles, MapTiles):
        raise FitError(
            "the data are not maps in memory; for maps in a file use stored_maps, for "
            "pooled points the residuals of the objective"
        )
    c2 = np.asarray(tiles.c2)
    dtype = kept_precision(c2.dtype, c2.size)
    c2 = c2.astype(dtype, copy=False)
    weights = None if tiles.root_weights is None else np.asarray(tiles.root_weights)
    n, counting = c2.shape[1], np.asarray(tiles.root_angle_weights) > 0
    fitted, residual, used = np.empty_like(c2), np.empty_like(c2), np.zeros(c2.shape, bool)
    height = rows_of_a_band(n)
    for angle in range(len(c2)):
        if counting[angle]:
            # What counts is the pair i < j.
            upper = np.triu(np.ones((n, n), bool), 1)
            upper &= True if weights is None else weights[angle] > 0
            used[angle] = upper | upper.T
        for low in range(0, n, height):
            rows = slice(low, min(low + height, n))
            fitted[angle, rows] = fitted_rows(fit, angle, rows, height)
            difference = c2[angle, rows] - fitted[angle, rows]
            residual[angle, rows] = np.where(used[angle, rows], difference, np.nan)
    return FittedMaps(
        c2=c2,
        fitted=fitted,
        residual=residual,
        used=used,
        root_weights=None if weights is None or is_mask(weights) else weights,
        t=np.asarray(term.t),
        phi=np.asarray(term.geometry.phi),
        q=float(term.geometry.q),
        gap=float(term.geometry.gap),
        n_angles=len(c2),
    )


def kept_precision(stored: np.dtype, entries: int) -> np.dtype:
    """Single precision for more than four million entries, else that of the data."""
    return np.dtype(np.float32) if entries > _SINGLE else stored


def chosen_angles(n_angles: int, most: int = 6) -> list[int]:
    """At most `most` angles, evenly spread over all of them."""
    if n_angles <= most:
        return list(range(n_angles))
    return sorted({round(i) for i in np.linspace(0, n_angles - 1, most)})
