"""What is left over: histogram and autocorrelation of the residuals."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ..maps import FittedMaps, chosen_angles
from .canvas import DATA, FIT, figure, grid, log_scale

_FRAMES = 400
_SHIFTS = 25


def autocorrelation(
    residual: Float[np.ndarray, "angle frame frame"], shifts: int = _SHIFTS
) -> tuple[Float[np.ndarray, "shift"], Float[np.ndarray, "shift"]]:
    """Correlation of residuals whose pairs share a frame, and of pairs shifted along their lag.

    The first moves t2 alone by 0, 1, … frames, the second moves t1 and t2 together. NaN entries
    are left out.
    """
    n = residual.shape[1]
    shifts = min(shifts, n - 2)
    upper = np.triu(np.ones((n, n), bool), 1)
    r = np.where(upper & np.isfinite(residual), residual, 0).astype(float)
    known = (upper & np.isfinite(residual)).astype(float)
    variance = (r * r).sum() / max(known.sum(), 1.0)
    sharing, along = [], []
    for k in range(shifts):
        pairs = (known[:, :, : n - k] * known[:, :, k:]).sum()
        total = (r[:, :, : n - k] * r[:, :, k:]).sum()
        sharing.append(total / max(pairs, 1.0) / variance if variance > 0 else 0.0)
        pairs = (known[:, : n - k, : n - k] * known[:, k:, k:]).sum()
        total = (r[:, : n - k, : n - k] * r[:, k:, k:]).sum()
        along.append(total / max(pairs, 1.0) / variance if variance > 0 else 0.0)
    return np.asarray(sharing), np.asarray(along)


def _weighted(maps: FittedMaps, angle: int, frames: slice = slice(None)) -> np.ndarray:
    """Residuals times root weights of some frames of one angle, NaN where no pair counted."""
    residual = maps.residual[angle, frames, frames]
    weights = maps.root_weights
    return residual if weights is None else residual * weights[angle, frames, frames]


def _sampled(maps: FittedMaps) -> Float[np.ndarray, "pair"]:
    """At most some 400 000 weighted residuals, evenly drawn; no more than a map is made of them."""
    step = max(1, int(np.count_nonzero(maps.used)) // 2 // 400_000)
    upper = np.triu(np.ones(maps.used.shape[1:], bool), 1)
    parts = []
    for angle in range(len(maps.residual)):
        flat = _weighted(maps, angle)[upper]
        parts.append(flat[np.isfinite(flat)][::step])
    return np.concatenate(parts)


def residual_figure(maps: FittedMaps, middle: FittedMaps | None = None) -> Figure:
    """Histogram in units of the standard deviation with the normal curve, and autocorrelation.

    Of the autocorrelation at most six angles and the middle 400 frames are used, or those of
    `middle` where frames are left out of `maps`.
    """
    fig = figure(7.6, 3.0, "Residuals")
    ((left, right),) = grid(fig, 1, 2, left=0.1, right=0.985, bottom=0.155, top=0.86, wspace=0.25)
    flat = _sampled(maps)
    spread = float(flat.std()) or 1.0
    edges = np.linspace(-5, 5, 81)
    counts, _ = np.histogram(np.clip(flat / spread, -5, 5), edges)
    density = counts / max(counts.sum(), 1) / np.diff(edges)
    left.stairs(np.maximum(density, 1e-12), edges, fill=True, color=DATA, alpha=0.5)
    x = np.linspace(-5, 5, 200)
    left.plot(x, np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi), color=FIT, label="normal")
    left.set_ylim(1e-5, 1)
    log_scale(left, y=True)
    unit = "" if maps.root_weights is None else ", weighted"
    left.set_xlabel(f"residual{unit} / {spread:.3g}")
    left.set_ylabel("density")
    left.legend()
    near = maps if middle is None else middle
    n = near.residual.shape[1]
    margin = max(0, (n - _FRAMES) // 2)
    frames = slice(margin, n - margin)
    chosen = [_weighted(near, angle, frames) for angle in chosen_angles(len(near.residual))]
    sharing, along = autocorrelation(np.stack(chosen))
    shift = np.arange(len(sharing))
    right.axhline(0, color="0.7", lw=0.8)
    right.plot(shift, sharing, ".-", color=DATA, label="pairs that share a frame")
    right.plot(shift, along, ".-", color=FIT, label="pairs of one lag")
    right.set_xlabel("shift [frames]")
    right.set_ylabel("autocorrelation")
    right.legend()
    return fig
