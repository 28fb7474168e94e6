"""The noise of data, from the data alone: by it penalties and sums of squares are compared."""

from collections.abc import Iterator
from contextlib import suppress

import jax
import jax.core
import numpy as np

from ..data import map_of
from ..data.noise import mad_sigma, sigma_of_lines
from ..errors import DataError, ModelError
from .drivers.loops import AbstractPieces
from .drivers.mesh import on_one_device
from .drivers.stored import StoredTiles
from .kernel.tiles import AbstractTiles, MapTiles, PointTiles

AnyTiles = AbstractTiles | AbstractPieces


def noise_of(tiles: AnyTiles) -> float:
    """Standard deviation that noise gives to the weighted residuals of data.

    That of each angle comes from second differences between neighbours of one lag, as in
    `data.mad_sigma`, over the sigma that the weights say they have; of all angles that count it is
    the root mean square. No model enters.

    **Raises:** `DataError` where no three entries of one lag are usable.
    """
    each = [sd for sd in _by_angle(on_one_device(tiles)) if sd is not None]
    if not each:
        raise DataError("no three entries of one lag are usable in any map")
    return float(np.sqrt(np.mean(np.square(each))))


def known_noise(tiles: AnyTiles, absolute: bool, given: float | None = None) -> float:
    """The noise that was given, one for `absolute` sigma, else `noise_of` the data.

    **Raises:** `ModelError` when it is not above 0 or cannot be estimated.
    """
    if given is not None:
        if not (np.isfinite(given) and given > 0):
            raise ModelError(f"noise = {given}; it must be a finite number above 0")
        return float(given)
    if absolute:
        return 1.0
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tiles)):
        raise ModelError(
            "penalties are weighed by the noise of the data, which cannot be estimated from maps "
            "that a program is traced with; give `noise`, or build the objective with penalties"
        )
    try:
        found, why = noise_of(tiles), ""
    except DataError as error:
        found, why = float("nan"), f" ({error})"
    if not found > 0:
        raise ModelError(
            f"the noise of the data is estimated as {found:g}{why}, which leaves penalties without "
            "a measure; give sigma with the data, or `noise`"
        )
    return found


def _by_angle(tiles: AnyTiles) -> Iterator[float | None]:
    if isinstance(tiles, MapTiles):
        # By NumPy at once: inside a compiled function even constants are traced when taken apart.
        c2, roots = np.asarray(tiles.c2), np.asarray(tiles.root_angle_weights)
        weights = None if tiles.root_weights is None else np.asarray(tiles.root_weights)
        for a, root in enumerate(roots):
            yield _of_map(c2[a], None if weights is None else weights[a], float(root))
    elif isinstance(tiles, StoredTiles):
        for a, root in enumerate(np.asarray(tiles.root_angle_weights)):
            c2, keep = map_of(tiles.source, tiles.rule, a)
            weights = keep.astype(float)
            if tiles.source.sigma_halves is not None:
                with tiles.source.reader() as reader:
                    sigma = reader.sigma_band(a, slice(0, tiles.source.n_frames))
                weights = np.divide(1.0, sigma, out=np.zeros_like(c2), where=keep & (sigma > 0))
            yield _of_map(c2, weights, float(root))
    elif isinstance(tiles, PointTiles):
        yield from _of_points(tiles)
    elif isinstance(tiles, AbstractPieces):
        for piece in tiles.stream():
            yield from _by_angle(piece.tiles)


def _of_map(c2: np.ndarray, weights: np.ndarray | None, root: float) -> float | None:
    """Of one map; None where it does not count."""
    if root == 0:
        return None
    with suppress(DataError):
        return root * mad_sigma(c2, root_weights=weights)
    return None


def _of_points(tiles: PointTiles) -> Iterator[float | None]:
    """Of points by angle: neighbours of one lag are those that follow each other in age."""
    shape = np.shape(tiles.values)
    angle = np.broadcast_to(np.asarray(tiles.angle)[:, None], shape)
    first, lag = tiles.first, tiles.second - tiles.first
    if tiles.means is not None:
        first, lag = tiles.means.age, tiles.means.lag
    columns = (angle, lag, first, tiles.values, tiles.root_weights)
    angle, lag, first, values, weights = (np.asarray(c).reshape(-1) for c in columns)
    used = np.flatnonzero(weights > 0)
    order = used[np.lexsort((first[used], lag[used], angle[used]))]
    angle, lag, first, values, weights = (c[order] for c in (angle, lag, first, values, weights))
    for a in np.unique(angle):
        here = angle == a
        columns = (first[here], values[here], 1 / weights[here])
        each = zip(
            *(np.split(c, np.flatnonzero(np.diff(lag[here])) + 1) for c in columns), strict=True
        )
        lines, spreads = [], []
        for frames, line, spread in each:
            # NaN where a frame is missing: what follows is no neighbour.
            gaps = np.flatnonzero(np.diff(frames) != 1) + 1
            lines.append(np.insert(line, gaps, np.nan))
            spreads.append(np.insert(spread, gaps, np.nan))
        try:
            yield sigma_of_lines(lines, int((first + lag).max()) + 1, spreads)
        except DataError:
            yield None
