"""Covariance of the score from the noise of intensity correlations, in one pass over the maps."""

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from ..compiled import Later, at_once
from ..compiling import is_traced, plain_jit, quick_jit
from ..cores import in_order, threads
from ..objective import (
    AbstractLoss,
    MapTiles,
    Piece,
    StoredTiles,
    TwoTimeTerm,
    each_piece,
)
from ..physics import field_correlation, field_factor
from ..physics.field import FIELD_TOLERANCE
from .dyadic import DyadicScores
from .evidence import Evidence, agree, alike_of, evidence_of, rather_white, tested_shot
from .local_noise import INDEPENDENT, ExpectedNoise, expected_noise, near_frames
from .map_sums import MapSums, Pass, map_sums, no_sums, piece_sums
from .speckle_noise import (
    beyond_gaussian,
    shared_frame_coefficients,
    traces,
    variance_coefficients,
)
from .structure import MapInBlocks, Structure, structure_of


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


# How the steps of the scores of a map are done: compiled, prepared, or traced.
_Runner = Callable[..., Any]


def _compiled(step: quick_jit, *args: Any) -> Any:
    return step(*args)


def _traced(step: quick_jit, *args: Any) -> Any:
    return step.function(*args)


class _Field(eqx.Module):
    """Field correlation of frames amid blocks, and whether any field has it.

    - `c1`: of the blocks of a pass; `sample`: of at most `_POOLED_SIDE` frames; `near`: of frames
        with their neighbours; `exists`: whether any field has the correlation.
    """

    c1: Inexact[Array, "*angle block block"]
    sample: Inexact[Array, "*angle sample sample"]
    near: Inexact[Array, "*angle near near"]
    exists: Bool[Array, "*angle"]


def _field(look: Pass, term: TwoTimeTerm, y) -> _Field:
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


def _blocks(sums: MapSums, field: _Field, pool: int) -> _Blocks:
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


def _covariance(sums: MapSums, blocks: _Blocks, contrast, shot, exists, pool: int):
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
        look = Pass(term.table(y), scaling, loss, pool)
        return _of_stored(look, term, y, above)
    assert isinstance(tiles, MapTiles)
    traced = is_traced((term, y, scaling, loss, above))
    run = _traced if traced else _compiled
    look, field = run(_prepare, _bare(term), y, scaling, loss, pool)
    scaling = look.scaling if traced else jax.device_get(look.scaling)
    of_maps = (field, scaling[:, 0], above)
    of_maps = jax.tree.map(jnp.asarray, of_maps) if traced else jax.device_get(of_maps)

    def at(angle):
        # Summed and finished in one compiled function, it takes half as long again.
        return _angle_scores(run, run(map_sums, look, tiles, angle), _at(of_maps, angle), pool)

    if traced:
        return jax.lax.map(at, jnp.arange(len(angles)))
    # On all cores, a map each.
    found = in_order(lambda k: jax.device_get(at(np.asarray(k))), angles)
    return jax.tree.map(lambda *one: np.stack(one), *found)


def lower_speckle_scores(
    term: TwoTimeTerm,
    y: Float[Array | np.ndarray, "free"],
    loss: AbstractLoss,
    later: Later,
) -> None:
    """Compile what `speckle_scores` runs from Python on maps in memory, without running it.

    `later` is given what takes long.
    """
    pool, angle = -(-term.t.shape[0] // _POOLED_SIDE), np.asarray(0)
    run = partial(_prepared, later)
    look, field = run(_prepare, _bare(term), y, term.reference, loss, pool)
    sums = run(map_sums, look, term.tiles, angle)
    of_map = (*_at((field, look.scaling[:, 0]), angle), np.zeros(()))
    _angle_scores(run, sums, of_map, pool)


def _prepared(later: Later, step: quick_jit, *args: Any) -> Any:
    return step.prepare(*args, later=later)


def _bare(term: TwoTimeTerm) -> TwoTimeTerm:
    """Without its data: those of another file compile nothing anew."""
    return eqx.tree_at(lambda one: (one.tiles, one.driver), term, (None, None))


@plain_jit
def _prepare(term, y, scaling, loss, pool):
    look = Pass(term.table(y), scaling, loss, pool)
    return look, _field(look, term, y)


def _of_stored(look: Pass, term: TwoTimeTerm, y, above) -> SpeckleScores:
    """The scores of maps in a file, in one pass over its pieces."""
    tiles, n = term.tiles, term.t.shape[0]
    assert isinstance(tiles, StoredTiles)
    zero, field = _begin(look, _bare(term), y, n, tiles.size)
    of_maps = jax.device_get((field, look.scaling[:, 0], above))

    def of_piece(numbered: tuple[int, Piece] | None) -> tuple[int, list[MapSums]]:
        if numbered is None:
            # What follows the sums is compiled beside those of the first piece, by threads that are
            # there: another one would have memory of its own.
            _angle_scores(partial(_prepared, at_once), zero, _at(of_maps, 0), look.pool)
            return -1, []
        k, piece = numbered
        slots = len(tiles.angles_of(k))
        each = (np.array([slot, slots], np.int32) for slot in range(slots))
        return k, [jax.device_get(piece_sums(look, zero, piece, place)) for place in each]

    def whole_maps():
        # A piece is read while the threads are at work, where there are any.
        numbered = enumerate(each_piece(tiles, ahead=int(threads() == 1)))
        begun = in_order(of_piece, chain((None,), numbered))
        next(begun)
        # The pieces of a map follow each other, and only maps that are not complete have sums.
        sums: list[MapSums] = []
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
        jax.device_get(_angle_scores(_compiled, sums, _at(of_maps, angle), look.pool))
        for angle, sums in whole_maps()
    ]
    return jax.tree.map(lambda *one: np.stack(one), *found)


@plain_jit
def _begin(look, term, y, n, size):
    return no_sums(look, n, size), _field(look, term, y)


class _Noise(eqx.Module):
    """What the sums of one map tell of its noise.

    - `shot`, `n_pixels`, `from_residuals`: as in `SpeckleScores`; `variance`: mean of N Var(c2).
    - `seen`: shot noise by which the model is tested, and `seen_variance` with it; `told`: whether
        it is that of the raw diagonal.
    - `signal`: mean of K² over the pairs.
    """

    shot: Float[Array, ""]
    n_pixels: Float[Array, ""]
    from_residuals: Bool[Array, ""]
    variance: Float[Array, ""]
    seen: Float[Array, ""]
    seen_variance: Float[Array, ""]
    told: Bool[Array, ""]
    signal: Float[Array, ""]


@plain_jit
def _noise(sums: MapSums, field: _Field, expected: ExpectedNoise, contrast, above) -> _Noise:
    n = sums.by_frame.shape[1]
    residual, partners, level = sums.by_frame[-3:]
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

    def mean_at(s):
        return v0 + v1 * s + v2 * s * s

    def implied(s):
        return (p0 + p1 * s) / mean_at(s)

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
    signal = contrast**2 * sums.sums[2] / count
    alike = alike_of(n, signal, contrast + from_diagonal)
    seen = agree(sums.local, expected, from_diagonal, alike)
    believed = known & (seen | (observed > implied(from_diagonal) / _DISBELIEF))
    level = mean_at(from_diagonal)
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
    shots = (
        jnp.where(believed, from_diagonal, jnp.nan),
        jnp.where(observed > _NONE, from_residuals, scattered),
    )
    tested, told = tested_shot(sums.local, expected, n, contrast, signal, shots)
    return _Noise(
        shot=s,
        n_pixels=mean_at(s) / jnp.maximum(variance, 1e-300),
        from_residuals=~believed,
        variance=mean_at(s),
        seen=tested,
        seen_variance=mean_at(tested),
        told=told,
        signal=signal,
    )


@quick_jit
def _in_blocks(sums: MapSums, field: _Field, contrast, pool: int):
    n = sums.by_frame.shape[1]
    return _blocks(sums, field, pool), expected_noise(field.near, n, contrast, field.exists)


def _map_in_blocks(sums: MapSums, blocks: _Blocks, pool: int) -> MapInBlocks:
    size = blocks.length.shape[0]
    pooled = sums.pooled[:, :size, :size]
    return MapInBlocks(pooled[:-2], pooled[-1], blocks.field, blocks.length, pool)


@quick_jit
def _noise_of_scores(
    sums: MapSums, blocks: _Blocks, field: _Field, noise: _Noise, contrast, pool: int
) -> Float[Array, "column column"]:
    covariance = _covariance(sums, blocks, contrast, noise.shot, field.exists, pool)
    return covariance / noise.n_pixels


@quick_jit
def _structure(
    sums: MapSums, blocks: _Blocks, field: _Field, noise: _Noise, contrast, pool: int
) -> Structure:
    return structure_of(
        _map_in_blocks(sums, blocks, pool),
        # Each pair is in the sums of both its frames.
        0.5 * jnp.sum(sums.by_frame[:-3], axis=1),
        sums.residuals.gram,
        contrast,
        noise.seen,
        sums.local.weighted[0] / sums.local.one[0],
        field.exists,
        noise.seen_variance / ((contrast + noise.seen) ** 2 + noise.signal),
    )


@plain_jit
def _together(
    sums: MapSums,
    blocks: _Blocks,
    field: _Field,
    expected: ExpectedNoise,
    noise: _Noise,
    covariance: Float[Array, "column column"],
    structure: Structure,
    contrast,
    pool: int,
) -> SpeckleScores:
    evidence = evidence_of(
        _map_in_blocks(sums, blocks, pool),
        structure,
        sums.local,
        sums.residuals,
        field.near,
        expected,
        contrast,
        (noise.seen, noise.told),
        noise.seen_variance,
        noise.signal,
        sums.by_frame[-3:-1],
        sums.sums[0],
    )
    scores = sums.by_frame[:-3]
    return SpeckleScores(
        covariance,
        DyadicScores(scores @ scores.T - sums.own, sums.own, sums.residuals),
        noise.shot,
        noise.n_pixels,
        noise.variance * sums.residuals.influence.count,
        noise.from_residuals,
        ~field.exists,
        evidence,
    )


def _angle_scores(
    run: _Runner, sums: MapSums, of_map: tuple[_Field, Any, Any], pool: int
) -> SpeckleScores:
    """What follows from the sums of one map, its field, contrast and diagonal `above` the model.

    In steps, since most of it is short and would take longer to be made fast than it runs.
    """
    field, contrast, above = of_map
    blocks, expected = run(_in_blocks, sums, field, contrast, pool)
    noise = run(_noise, sums, field, expected, contrast, above)
    known = sums, blocks, field, noise, contrast, pool
    # Each by itself needs less memory.
    covariance, structure = run(_noise_of_scores, *known), run(_structure, *known)
    parts = expected, noise, covariance, structure
    return run(_together, sums, blocks, field, *parts, contrast, pool)


def _at(of_maps, angle):
    """What is known of one map: all is compiled once for any number of them."""
    return jax.tree.map(lambda leaf: leaf[angle], of_maps)
