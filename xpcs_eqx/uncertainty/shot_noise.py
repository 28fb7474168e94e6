"""The level of shot noise that the raw diagonal of a map tells."""

import numpy as np
from jaxtyping import Float

from ..objective import MapTiles, StoredTiles, TwoTimeTerm


def shot_noise_of_diagonal(
    term: TwoTimeTerm, per_angle: Float[np.ndarray, "angle 2"]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """1/(mean count) by angle from the raw diagonal; NaN where that was overwritten, with why."""
    n_angles = per_angle.shape[0]
    shot, why = np.full(n_angles, np.nan), []
    side_diagonals = _side_diagonals(term.tiles)
    if term.diagonal is None or side_diagonals is None:
        return shot, ("the data carry no diagonal",)
    diagonal = np.asarray(term.diagonal)
    for a in range(n_angles):
        line = diagonal[a]
        good = np.isfinite(line)
        if good.sum() < 2:
            why.append(f"angle {a}: no diagonal")
            continue
        side = side_diagonals[a].astype(float)
        both = 0.5 * (np.append(side, side[-1]) + np.insert(side, 0, side[0]))
        before, after = np.insert(side, 0, side[0]), np.append(side, side[-1])
        copied = [np.isclose(line, other, rtol=1e-6, atol=0) for other in (both, before, after)]
        if max(np.mean(c[good]) for c in copied) > 0.5 or np.ptp(line[good]) == 0:
            why.append(f"angle {a}: the diagonal was overwritten")
            continue
        contrast, offset = (float(v) for v in per_angle[a])
        estimate = line[good].mean() - offset - contrast
        spread = line[good].std(ddof=1) / np.sqrt(good.sum())
        if estimate < -3 * spread - 0.05 * contrast:
            why.append(f"angle {a}: the diagonal lies below offset + contrast")
            continue
        shot[a] = max(estimate, 0.0)
    return shot, tuple(why)


def _side_diagonals(tiles) -> np.ndarray | None:
    """c2 of neighbouring frames by angle, when the data form maps."""
    if isinstance(tiles, StoredTiles):
        return tiles.side_diagonal
    if isinstance(tiles, MapTiles):
        return np.diagonal(np.asarray(tiles.c2), offset=1, axis1=1, axis2=2)
    return None
