"""Covariance of the score from the noise of intensity correlations, in one pass over the maps."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from ..compiling import is_traced, plain_jit, quick_jit
from ..cores import in_order, threads
from ..objective import (
    AbstractLoss,
    BandTiles,
    FrameTable,
    MapTiles,
    Piece,
    StoredTiles,
    TwoTimeTerm,
    each_piece,
)
from ..physics import field_correlation, field_factor
from ..physics.field import FIELD_TOLERANCE
from .dyadic import DyadicScores, ResidualSums, block_scores, products_of
from .evidence import Evidence, agree, alike_of, evidence_of, rather_white
from .local_noise import INDEPENDENT, LocalSums, expected_noise, local_sums, near_frames
from .speckle_noise import (
    beyond_gaussian,
    shared_frame_coefficients,
    traces,
    variance_coefficients,
)
from .structure import MapInBlocks


class SpeckleScores(eqx.Module):
    """Score covariance by angle from the noise of intensity correlations, and how it was found.

    All is for the linear loss but for `dyadic`; what a robust loss makes of it follows from the
    residual sums in that.

    - `covariance`: Σ_pq w_p w_q J_p J_q Cov(c2_p, c2_q) with J = ∂c2.
    - `dyadic`: as `dyadic_scores` has it, which costs nothing here.
    - `shot`: shot-noise term 1/(mean count); `from_residuals` tells where it had to be taken from
        residuals instead of the raw diagonal: from the correlation of those that share a frame or
        from differences of neighbours, whichever shows less of it.
    - `n_pixels`: effective number of pixels N; `variance_sum`: N Σ Var(c2) over the pairs.
    - `gaussian_only`: no field has the correlation of the model, so that only the covariance of
        Gaussian intensities is counted.
    - `evidence`: what a test of the model needs.
    """

    covariance: Float[Array, "angle column column"]
    dyadic: DyadicScores
    shot: Float[Array, "angle"]
    n_pixels: Float[Array, "angle"]
    variance_sum: Float[Array, "angle"]
    from_residuals: Bool[Array, "angle"]
    gaussian_only: Bool[Array, "angle"]
    evidence: Evidence


# The raw diagonal is not believed when it implies residuals this many times more correlated than
# they are: the map then carries other noise than speckle.
_DISBELIEF = 4.0
# Frames along a map up to which the n³ products are done frame by frame. Longer maps are pooled,
# which changes the variance along any direction by a few percent at most, even for a decay
# within one frame.
_POOLED_SIDE = 256
# Frames on which the field is tested: a correlation that no field has fails on a part of them.
_TESTED_FRAMES = 64
# Independent differences of neighbours, of which fewer scatter too much to tell the shot noise: of
# less than 23 frames or so.
_TELLING = 100
# A correlation of residuals below this is none.
_NONE = 1e-6
# Combinations of columns that a map does not see at all, in units of the diagonal.
_UNSEEN = 1e-14
# Pooling frames may leave a direction in which the parts of the covariance cancel to less than
# this part of that of Gaussian intensities, or to less than nothing.
_LEAST = 0.02


class _MapSums(eqx.Module):
    """What one pass over the tiles of one map adds up.

    - `pooled`: upper triangle of the columns (w ∂c2), of |c1|² and of √w ψ(√w r), summed over
        blocks of frames.
    - `by_frame`: scores, residual, pairs that count and |c1|² summed by frame.
    - `gram`: Σ of products of the columns over pairs, exact where blocks are longer than a frame;
        `own`: the same for scores.
    - `sums`: Σ of the squared residual, of |c1|², |c1|⁴ and |c1|⁶ over the pairs that count, and
        of |c1|⁴ over all; residual and number of the pairs of frames one and two apart.
    """

    pooled: Float[Array, "column_and_two block block"]
    by_frame: Float[Array, "column_and_three frame"]
    gram: Float[Array, "column column"]
    own: Float[Array, "column column"]
    sums: Float[Array, "9"]
    residuals: ResidualSums
    local: LocalSums


class _Pass(eqx.Module):
    """What a pass over tiles needs to know: the point looked at, and the length of a block."""

    table: FrameTable
    scaling: Float[Array, "angle 2"]
    loss: AbstractLoss
    pool: int = eqx.field(static=True)


def _no_sums(look: _Pass, n: int, size: int) -> _MapSums:
    columns, dtype = look.table.columns + 2, look.scaling.dtype
    # A window of blocks may reach over the end of the map.
    side = -(-n // look.pool) + _window(size, look.pool)
    square = jnp.zeros((columns, columns), dtype)
    return _MapSums(
        jnp.zeros((columns + 2, side, side), dtype),
        jnp.zeros((columns + 3, n), dtype),
        square,
        square,
        jnp.zeros((9,), dtype),
        ResidualSums.zero(columns, (), dtype),
        LocalSums.zero(dtype),
    )


def _window(size: int, pool: int) -> int:
    """Blocks that a tile can touch, wherever it begins."""
    return size if pool == 1 else -(-size // pool) + 1


def _pool(planes: Float[Array, "plane row column"], first, second, pool: int):
    """Sums over blocks of `pool` frames of a tile, whose frames begin at `first` and `second`.

    Rows are moved to where their block begins and added up as they lie, which is far less work
    than a product with a 0/1 matrix; that is left for the columns, when few rows remain.
    """
    n_planes, size, _ = planes.shape
    if pool == 1:
        return planes
    window = _window(size, pool)
    wide = jnp.zeros((n_planes, window * pool, size), planes.dtype)
    wide = jax.lax.dynamic_update_slice(wide, planes, (0, first % pool, 0))
    rows = jnp.sum(wide.reshape(n_planes, window, pool, size), axis=2)
    place = (second % pool + jnp.arange(size)) // pool
    return rows @ (place[:, None] == jnp.arange(window)).astype(planes.dtype)


def _add_tile(look: _Pass, sums: _MapSums, tiles: MapTiles | BandTiles, row) -> _MapSums:
    """The sums of a map with those of one of its tiles, a row of the table of `tiles`."""
    size, pool, dtype = tiles.size, look.pool, look.scaling.dtype
    block = tiles.block(row)
    found = block_scores(look.table, block, look.scaling, look.loss)
    # Pairs without weight have a signal as well; what a tile shares with a neighbour has not.
    low_i, low_j = row[1] * size, row[2] * size
    pairs = (block.first < block.second) & (block.first >= low_i) & (block.second >= low_j)
    signal = jnp.where(pairs, found.correlation, 0.0)
    stack = block.root_weights * found.columns
    scores = found.columns * found.influence
    used = (block.root_weights > 0).astype(dtype)
    first, second = jnp.ravel(block.first), jnp.ravel(block.second)
    # The last column is that of the offset, √w.
    planes = jnp.concatenate([stack, signal[None], scores[-1:]])
    part = _pool(planes, first[0], second[0], pool)
    start = (jnp.zeros_like(first[0]), first[0] // pool, second[0] // pool)
    here = jax.lax.dynamic_slice(sums.pooled, start, part.shape)
    lines = jnp.concatenate([scores, jnp.stack([found.raw, used, signal])])
    by_frame = sums.by_frame.at[:, first].add(jnp.sum(lines, 2))
    residuals = ResidualSums.of(found, block, look.loss)
    if pool > 1 and tiles.root_weights is not None:
        gram = products_of(stack)
    else:
        # Pairs of an angle weigh the same; or it only tells which columns are independent.
        gram = tiles.root_angle_weights[block.angle] ** 2 * residuals.gram
    # Pairs of an angle weigh the same where there are no weights of their own.
    weight = block.root_weights if tiles.root_weights is not None else None
    even = tiles.root_angle_weights[block.angle]
    local = local_sums(found.raw, block.root_weights > 0, even if weight is None else weight)
    counted = used * signal
    powers = (found.raw**2, counted, counted * signal, counted * signal**2, signal**2)
    apart = [block.second - block.first == k for k in (1, 2)]
    near = [jnp.where(at, one, 0.0) for one in (found.raw, used) for at in apart]
    return _MapSums(
        jax.lax.dynamic_update_slice(sums.pooled, here + part, start),
        by_frame.at[:, second].add(jnp.sum(lines, 1)),
        sums.gram + gram,
        sums.own + products_of(scores),
        sums.sums + jnp.stack([jnp.sum(one) for one in (*powers, *near)]),
        jax.tree.map(jnp.add, sums.residuals, residuals),
        jax.tree.map(jnp.add, sums.local, local),
    )


@quick_jit
def _map_sums(look: _Pass, tiles: MapTiles, angle) -> _MapSums:
    rows = tiles.table[tiles.table[:, 0] == 0, 1:]

    def body(sums, row):
        return _add_tile(look, sums, tiles, jnp.concatenate([angle[None], row])), None

    none = _no_sums(look, tiles.c2.shape[1], tiles.size)
    return jax.lax.scan(body, none, jnp.asarray(rows))[0]


class _Field(eqx.Module):
    """Field correlation of frames amid blocks, and whether any field has it.

    - `c1`: of the blocks of a pass; `sample`: of at most `_POOLED_SIDE` frames; `near`: of frames
        with their neighbours; `exists`: whether any field has the correlation.
    """

    c1: Inexact[Array, "*angle block block"]
    sample: Inexact[Array, "*angle sample sample"]
    near: Inexact[Array, "*angle near near"]
    exists: Bool[Array, "*angle"]


def _field(look: _Pass, term: TwoTimeTerm, y) -> _Field:
    pool = look.pool
    n = term.t.shape[0]
    model = term.parameters.build_from_coordinates(y)

    def amid(pool):
        middle = np.minimum(np.arange(0, n, pool) + pool // 2, n - 1)
        return field_correlation(model, term.t[middle], term.geometry)

    usual = -(-n // _POOLED_SIDE)
    sample = amid(usual)
    some = slice(None, None, -(-sample.shape[1] // _TESTED_FRAMES))
    error = jax.lax.map(lambda one: field_factor(one)[1], sample[:, some, some])
    near = field_correlation(model, term.t[near_frames(n)], term.geometry)

    return _Field(
        sample if pool == usual else amid(pool),
        sample,
        near,
        error < FIELD_TOLERANCE,
    )


class _Blocks(eqx.Module):
    """A map in blocks of frames.

    - `columns`: symmetric, summed over the pairs of frames of two blocks.
    - `correlation`: |c1|² summed likewise, pairs of a frame with itself left out.
    - `field`: correlation of the field of blocks; `length`: frames in a block.
    """

    columns: Float[Array, "column block block"]
    correlation: Float[Array, "block block"]
    field: Inexact[Array, "block block"]
    length: Float[Array, "block"]


def _blocks(sums: _MapSums, field: _Field, pool: int) -> _Blocks:
    n = sums.by_frame.shape[1]
    blocks = -(-n // pool)
    pooled = sums.pooled[:, :blocks, :blocks]
    pooled = pooled + jnp.swapaxes(pooled, 1, 2)
    # The last block may be shorter.
    length = jnp.asarray(np.minimum(pool, n - pool * np.arange(blocks)), pooled.dtype)
    correlation = pooled[-2]
    mean = (correlation + jnp.diag(length)) / (length[:, None] * length)
    size = jnp.abs(field.c1)
    # The model gives sign and phase, the sums over blocks the size.
    phase = jnp.where(size > 0, field.c1 / jnp.where(size > 0, size, 1.0), 1.0)
    return _Blocks(pooled[:-2], correlation, phase * jnp.sqrt(mean), length)


def _independent(gram):
    """Combinations W of columns with W gram Wᵀ = 1, and the way back, columns = B · combinations.

    Directions in which the map sees nothing are left out of both.
    """
    size = jnp.sqrt(jnp.diagonal(gram))
    size = jnp.where(size > 0, size, 1.0)
    values, vectors = jnp.linalg.eigh(gram / jnp.outer(size, size))
    seen = values > _UNSEEN * values[-1]
    root = jnp.sqrt(jnp.where(seen, values, 1.0))
    there = jnp.where(seen, vectors / root, 0.0).T / size
    return there, size[:, None] * jnp.where(seen, vectors * root, 0.0)


def _not_below(total, gaussian):
    """`total` with its least eigenvalues, in units of `gaussian`, raised to `_LEAST`."""
    there, back = _independent(gaussian)
    values, vectors = jnp.linalg.eigh(there @ total @ there.T)
    turned = back @ vectors
    # Where the combinations are missing nothing is seen, and `back` leaves it out.
    return (turned * jnp.maximum(values, _LEAST)) @ turned.T


def _covariance(sums: _MapSums, blocks: _Blocks, contrast, shot, exists, pool: int):
    """N times the covariance of the score.

    ½ tr(K J_a K J_b) with K = contrast·|c1|² + s·1, where a diagonal k = contrast + s is the whole
    of what a frame has with itself, and `beyond_gaussian` on top. Columns vary slowly between
    neighbouring frames, so on long maps they are taken as constant over blocks of frames: with E
    the 0/1 matrix of blocks, J ≈ E Ĵ Eᵀ turns the traces into those of EᵀKE and Ĵ. The part in k²,
    where the variation inside blocks would matter, is exact.

    Columns are first combined to independent ones: in those, single precision is ample for an
    error bar, however alike the columns are, and halves the work of the products.
    """
    k = contrast + shot
    there, back = _independent(sums.gram)
    columns = jnp.einsum("dc,cij->dij", there, blocks.columns).astype(jnp.float32)
    length = blocks.length.astype(jnp.float32)
    matrix = contrast * blocks.correlation + k * jnp.diag(blocks.length)
    matrix = matrix.astype(jnp.float32)

    def product(column):
        mean = column / (length[:, None] * length)
        return matrix @ mean, jnp.sqrt(length)[:, None] * mean * jnp.sqrt(length)

    products, means = jax.lax.map(product, columns)
    mean = means.reshape(means.shape[0], -1)
    gaussian = traces(products, products).astype(k.dtype)
    gaussian = 0.5 * (gaussian + gaussian.T)
    if pool > 1:
        seen = there @ sums.gram @ there.T
        gaussian = gaussian + k * k * (2 * seen - (mean @ mean.T).astype(k.dtype))
    gaussian = 0.5 * gaussian
    single = jnp.complex64 if jnp.iscomplexobj(blocks.field) else jnp.float32
    beyond = beyond_gaussian(
        columns,
        blocks.field.astype(single),
        length,
        contrast.astype(jnp.float32),
        shot.astype(jnp.float32),
    )
    total = _not_below(gaussian + jnp.where(exists, beyond.astype(k.dtype), 0.0), gaussian)
    return back @ total @ back.T


def speckle_scores(
    term: TwoTimeTerm,
    y: Float[Array, "free"],
    scaling: Float[Array, "angle 2"],
    loss: AbstractLoss,
    above: Float[Array | np.ndarray, "angle"],
    pooled_side: int = _POOLED_SIDE,
) -> SpeckleScores:
    """Covariance of the score by angle from that of speckle intensities and photon counts.

    With J the weighted derivatives of c2, K = contrast·|c1|² + s·1 and N pixels it is

        [½ tr(K J_a K J_b) + third and fourth cumulants + normalisation of frames] / N,

    the first term being that of Gaussian intensities. `speckle_noise` has the others; they follow
    from the field correlation of the model. All but one are chains of matrix products, and that
    one is summed as it stands, so that nothing is drawn at random: the alternative, a few thousand
    simulated pixels, costs as much and leaves 3 % of noise. Where no field has the model's
    correlation, only the first term is counted.

    `N` comes from the residual variance. s is what the raw diagonal lies `above` the model, less
    what pairs of neighbouring frames do. Where that is NaN, as `diagonal_above` has it, s follows
    from the residuals. Needs maps; those in a file are read in
    one pass over their pieces, from Python.

    Maps of more than `pooled_side` frames are pooled to that many blocks of frames for the
    products of matrices, which bounds their memory and makes their time that of an evaluation.
    """
    tiles, n = term.tiles, term.t.shape[0]
    pool, angles = -(-n // pooled_side), range(scaling.shape[0])
    if isinstance(tiles, StoredTiles):
        look = _Pass(term.table(y), scaling, loss, pool)
        return _of_stored(look, term, y, above)
    assert isinstance(tiles, MapTiles)
    traced = is_traced((term, y, scaling, loss, above))
    steps = (_prepare, _map_sums, _finish)
    prepare, sums, finish = (one.function if traced else one for one in steps)
    look, field = prepare(_bare(term), y, scaling, loss, pool)
    scaling = look.scaling if traced else jax.device_get(look.scaling)
    of_maps = (field, scaling[:, 0], above)
    of_maps = jax.tree.map(jnp.asarray, of_maps) if traced else jax.device_get(of_maps)

    def at(angle):
        # Summed and finished in one compiled function, it takes half as long again.
        return finish(sums(look, tiles, angle), *_at(of_maps, angle), pool)

    if traced:
        return jax.lax.map(at, jnp.arange(len(angles)))
    # On all cores, a map each.
    found = in_order(lambda k: jax.device_get(at(np.asarray(k))), angles)
    return jax.tree.map(lambda *one: np.stack(one), *found)


def lower_speckle_scores(
    term: TwoTimeTerm,
    y: Float[Array | np.ndarray, "free"],
    loss: AbstractLoss,
    later: Callable[[Callable[[], Any]], Any],
) -> None:
    """Compile what `speckle_scores` runs from Python on maps in memory, without running it.

    `later` is given what may be done beside the rest, of which there is half.
    """
    pool, angle = -(-term.t.shape[0] // _POOLED_SIDE), np.asarray(0)
    look, field = _prepare.prepare(_bare(term), y, term.reference, loss, pool, later=later)
    complete = _map_sums.prepare(look, term.tiles, angle, later=later)
    _finish.prepare(complete, *_at((field, look.scaling[:, 0]), angle), np.zeros(()), pool)


def _bare(term: TwoTimeTerm) -> TwoTimeTerm:
    """Without its data: those of another file compile nothing anew."""
    return eqx.tree_at(lambda one: (one.tiles, one.driver), term, (None, None))


@plain_jit
def _prepare(term, y, scaling, loss, pool):
    look = _Pass(term.table(y), scaling, loss, pool)
    return look, _field(look, term, y)


def _of_stored(look: _Pass, term: TwoTimeTerm, y, above) -> SpeckleScores:
    """The scores of maps in a file, in one pass over its pieces."""
    tiles, n = term.tiles, term.t.shape[0]
    assert isinstance(tiles, StoredTiles)
    zero, field = _begin(look, _bare(term), y, n, tiles.size)
    of_maps = jax.device_get((field, look.scaling[:, 0], above))

    def of_piece(numbered: tuple[int, Piece] | None) -> tuple[int, list[_MapSums]]:
        if numbered is None:
            # What follows the sums is compiled beside those of the first piece, by threads that are
            # there: another one would have memory of its own.
            _finish.prepare(zero, *_at(of_maps, 0), look.pool)
            return -1, []
        k, piece = numbered
        slots = len(tiles.angles_of(k))
        each = (np.array([slot, slots], np.int32) for slot in range(slots))
        return k, [jax.device_get(_piece_sums(look, zero, piece, place)) for place in each]

    def whole_maps():
        # A piece is read while the threads are at work, where there are any.
        numbered = enumerate(each_piece(tiles, ahead=int(threads() == 1)))
        begun = in_order(of_piece, chain((None,), numbered))
        next(begun)
        # The pieces of a map follow each other, and only maps that are not complete have sums.
        sums: list[_MapSums] = []
        for k, parts in begun:
            if k % tiles.bands == 0:
                sums = parts
            else:
                both = zip(sums, parts, strict=True)
                sums = [jax.tree.map(np.add, before, part) for before, part in both]
            if k % tiles.bands == tiles.bands - 1:
                yield from zip(tiles.angles_of(k), sums, strict=True)

    # By one thread, beside those that sum: memory is that of one map.
    found = [
        jax.device_get(_finish(sums, *_at(of_maps, angle), look.pool))
        for angle, sums in whole_maps()
    ]
    return jax.tree.map(lambda *one: np.stack(one), *found)


@plain_jit
def _begin(look, term, y, n, size):
    return _no_sums(look, n, size), _field(look, term, y)


@quick_jit
def _piece_sums(look, zero, piece, place):
    """`zero` and the tiles of one of the maps of a piece, whose tables take the maps in turn.

    `place` is which map it is, and of how many.
    """
    slot, slots = place

    def body(k, sums):
        return _add_tile(look, sums, piece.tiles, piece.rows[k * slots + slot])

    return jax.lax.fori_loop(0, piece.count // slots, body, zero)


def _angle_scores(sums: _MapSums, field: _Field, contrast, above, pool: int) -> SpeckleScores:
    """What follows from the sums of one map."""
    n = sums.by_frame.shape[1]
    scores, (residual, partners, level) = sums.by_frame[:-3], sums.by_frame[-3:]
    blocks = _blocks(sums, field, pool)
    count = jnp.maximum(sums.residuals.influence.count, 1.0)
    variance = sums.sums[0] / count
    # Mean product of two residuals that share one frame, over their variance.
    triples = jnp.sum(partners * (partners - 1))
    shared = jnp.sum(residual**2) - 2 * sums.sums[0]
    observed = shared / jnp.maximum(triples, 1.0) / jnp.maximum(variance, 1e-300)
    # The same for speckle: (p0 + p1 s)/(v0 + v1 s + v2 s²).
    powers = contrast ** jnp.arange(1, 4)
    means = powers * sums.sums[1:4] / count
    v0, v1, v2 = variance_coefficients(contrast, means, field.exists)
    pairs = n * (n - 1)
    alone = jnp.sum(level) / pairs
    both = (jnp.sum(level**2) - 2 * sums.sums[4]) / (pairs * max(n - 2, 1))
    means = powers[:2] * jnp.stack([alone, both])
    p0, p1 = shared_frame_coefficients(contrast, means, field.sample, field.exists)

    def implied(s):
        return (p0 + p1 * s) / (v0 + v1 * s + v2 * s * s)

    def solved(correlation):
        """The s that implies a correlation; below zero for one that scatter has made so."""
        half = 0.5 * (correlation * v1 - p1)
        rest = correlation * v2 * (correlation * v0 - p0)
        return (jnp.sqrt(jnp.maximum(half * half - rest, 0.0)) - half) / (correlation * v2)

    from_residuals = jnp.maximum(solved(jnp.maximum(observed, _NONE)), 0.0)
    # A sum over n frames keeps half of its variance; what is further below zero is no scatter.
    scattered = solved(jnp.clip(observed, -0.5 / n, -_NONE))
    # What the fit leaves of the diagonal, it leaves of the pairs beside it, along a line.
    (one, two), (n_one, n_two) = sums.sums[5:7], sums.sums[7:9]
    one, two = one / jnp.maximum(n_one, 1.0), two / jnp.maximum(n_two, 1.0)
    shot = above + one + jnp.where((n_one > 0) & (n_two > 0), one - two, 0.0)
    # Scatter may make it less than none, which keeps the mean of N right, but leaves some variance.
    known = jnp.isfinite(shot) & (contrast + shot > 0)
    from_diagonal = jnp.where(known, shot, 0.0)
    # Few frames scatter too much for their correlation to tell; differences of neighbours do not.
    expected = expected_noise(field.near, n, contrast, field.exists)
    signal = contrast**2 * sums.sums[2] / count
    alike = alike_of(n, signal, contrast + from_diagonal)
    seen = agree(sums.local, expected, from_diagonal, alike)
    believed = known & (seen | (observed > implied(from_diagonal) / _DISBELIEF))
    level = v0 + v1 * from_diagonal + v2 * from_diagonal**2
    believed &= ~rather_white(sums.local, expected, from_diagonal, alike, variance, level)
    # A fit follows much of what its residuals would have in common, and makes the noise look whiter
    # than it is, the more so the fewer frames there are; differences of neighbours it leaves alone.
    ratio, differences = sums.local.ratio, sums.local.two[1]
    tells = jnp.isfinite(ratio) & (INDEPENDENT * differences > _TELLING)
    from_differences = jnp.where(tells, expected.shot_of(ratio, contrast), jnp.inf)
    elsewhere = jnp.minimum(from_residuals, from_differences)
    s = jnp.where(believed, jnp.maximum(from_diagonal, 0.0), elsewhere)
    # A map that decays within a frame has no contrast, and only white noise: of any size.
    s = jnp.where((contrast + s > 0) | (sums.sums[2] * contrast > 0), s, 1.0 - contrast)
    mean = v0 + v1 * s + v2 * s * s
    n_pixels = mean / jnp.maximum(variance, 1e-300)
    covariance = _covariance(sums, blocks, contrast, s, field.exists, pool) / n_pixels
    size = blocks.length.shape[0]
    evidence = evidence_of(
        MapInBlocks(
            columns=sums.pooled[:-2, :size, :size],
            residual=sums.pooled[-1, :size, :size],
            field=blocks.field,
            length=blocks.length,
            pool=pool,
        ),
        sums.local,
        sums.residuals,
        field.near,
        expected,
        field.exists,
        contrast,
        (
            jnp.where(believed, from_diagonal, jnp.nan),
            jnp.where(observed > _NONE, from_residuals, scattered),
        ),
        (v0, v1, v2),
        signal,
        # Each pair is in the sums of both its frames.
        0.5 * jnp.sum(scores, axis=1),
        sums.by_frame[-3:-1],
        sums.sums[0],
    )
    return SpeckleScores(
        covariance,
        DyadicScores(scores @ scores.T - sums.own, sums.own, sums.residuals),
        s,
        n_pixels,
        mean * sums.residuals.influence.count,
        ~believed,
        ~field.exists,
        evidence,
    )


def _at(of_maps, angle):
    """What is known of one map: `_finish` is compiled once for any number of them."""
    return jax.tree.map(lambda leaf: leaf[angle], of_maps)


_finish = quick_jit(_angle_scores)
