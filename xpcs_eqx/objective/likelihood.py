"""The likelihood of the pixels behind two-time maps.

A two-time map minus one is the sample covariance C of the intensities of N pixels, each divided by
its mean over them, and its expectation is, with contrast β, offset o and shot noise s,

    K = (o − 1) 11ᵀ + β |c1|² + s 1.

Were the intensities Gaussian, −log L = N/2 [log det K + tr K⁻¹C] (Wishart). For speckle it is a
quasi-likelihood: its minimum is consistent, and by a factor more precise than least squares, which
takes no notice of how the entries of a map hang together; errors come from `uncertainty`.
Maps of many frames are cut into blocks along their diagonal, whose likelihoods are summed: pairs of
frames of different blocks are left out.

Anderson, An Introduction to Multivariate Statistical Analysis, ch. 7 (the distribution); White,
Econometrica 50, 1 (1982) (estimates from a likelihood that is not the true one); Varin, Reid and
Firth, Statistica Sinica 21, 5 (2011) (likelihoods of parts, summed).
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..compiling import quick_jit
from ..errors import ModelError
from ..parameters import ParameterMap
from ..scaling import AbstractScaling
from .drivers.mesh import on_one_device
from .equations import AbstractObjective, NormalEquations
from .kernel.blocks import Block, block_columns, block_correlation
from .kernel.frame_table import FrameTable
from .kernel.tiles import MapTiles
from .penalties import AbstractPenalty, penalty_equations
from .scatter import SHOT_BOUNDS, completed, of_scatter, off_diagonal
from .two_time import JointVariables, TwoTimeTerm

# Frames whose scatter tells the shot noise well enough.
_ENOUGH_FRAMES = 200


class ShotScaling(AbstractScaling):
    """Contrast and offset as another scaling has them, and a level of shot noise for each angle.

    - `inner`: the scaling; its coefficients come first.
    - `given`: levels that are not fitted, NaN where they are.
    """

    inner: AbstractScaling
    given: Float[Array, "angle"]
    fitted: tuple[int, ...] = eqx.field(static=True)

    @property
    def basis(self):
        inner = self.inner.basis
        blank = jnp.zeros((*inner.shape[:2], len(self.fitted)), inner.dtype)
        return jnp.concatenate([inner, blank], axis=2)

    @property
    def constant(self):
        return self.inner.constant

    @property
    def bounds(self):
        low, high = (
            jnp.concatenate([jnp.asarray(side), jnp.full((len(self.fitted),), shot)])
            for side, shot in zip(self.inner.bounds, SHOT_BOUNDS, strict=True)
        )
        return low, high

    @property
    def names(self):
        return (*self.inner.names, *(f"shot[{i}]" for i in self.fitted))

    @property
    def shot_basis(self) -> Float[Array, "angle coefficient"]:
        """Derivative of the level of each angle with respect to the coefficients."""
        out = np.zeros((self.given.shape[0], self.size))
        out[list(self.fitted), self.inner.size + np.arange(len(self.fitted))] = 1.0
        return jnp.asarray(out)

    def shot(self, coefficients: Float[Array, "coefficient"]) -> Float[Array, "angle"]:
        """The level of shot noise, one over the mean count, at each angle."""
        fitted = self.shot_basis @ coefficients
        return jnp.where(jnp.isnan(self.given), fitted, self.given)

    def levels(self, coefficients: Float[Array, "coefficient"]) -> Float[Array, "angle 3"]:
        """Contrast, offset and shot noise of each angle."""
        shot = self.shot(coefficients)[:, None]
        return jnp.concatenate([self.per_angle(coefficients), shot], axis=1)

    def from_per_angle(self, values):
        """Also from (contrast, offset, shot noise); without the last that of one photon a frame."""
        values = jnp.asarray(values)
        shot = values[:, 2] if values.shape[1] > 2 else jnp.ones(values.shape[:1])
        fitted = jnp.clip(shot[np.asarray(self.fitted, int)], *SHOT_BOUNDS)
        return jnp.concatenate([self.inner.from_per_angle(values[:, :2]), fitted])


class SampleCovariances(eqx.Module):
    """The sample covariance of each block of frames, or of one, frames left out being those of 1.

    Blocks have the same size, and each angle as many as any other, one after the other.

    - `frames`: their numbers; `angle`: that of the angle.
    - `kept`: 1 for frames that count, 0 for others; `known`: 1 where the diagonal is of the data.
    - `floor`: −log L of the best covariance there is.
    """

    covariance: Float[Array, "frame frame"]
    kept: Float[Array, "frame"]
    known: Float[Array, ""]
    n_pixels: Float[Array, ""]
    frames: Int[Array, "frame"]
    angle: Int[Array, ""]
    floor: Float[Array, ""]

    @classmethod
    def of(cls, covariance, kept, known, n_pixels, frames) -> "SampleCovariances":
        """All together, from arrays by angle and block; `known` and `n_pixels` are by angle."""
        angles, blocks = np.shape(kept)[:2]
        by_angle = [np.repeat(np.asarray(one, float), blocks) for one in (known, n_pixels)]
        given = [jnp.asarray(one, float) for one in (covariance, kept)]
        flat = [jnp.reshape(one, (angles * blocks, *one.shape[2:])) for one in given]
        return cls(
            *flat,
            *map(jnp.asarray, by_angle),
            frames=jnp.asarray(np.tile(frames, (angles, 1))),
            angle=jnp.asarray(np.repeat(np.arange(angles), blocks)),
            floor=_floors(flat[0], jnp.asarray(by_angle[1])),
        )


def blocks_of_frames(
    n: int, most: int | None
) -> tuple[Int[np.ndarray, "block frame"], Bool[np.ndarray, "block frame"]]:
    """Numbers of the frames of blocks of at most so many, and which of them are there.

    As few blocks as can be; the last one may end with the last frame again.
    """
    count = 1 if most is None else -(-n // most)
    frames = np.arange(count * -(-n // count)).reshape(count, -1)
    return np.minimum(frames, n - 1), frames < n


def _symmetric(upper: Float[Array, "frame frame"], diagonal: float) -> Float[Array, "frame frame"]:
    upper = jnp.triu(upper, 1)
    return upper + upper.T + diagonal * jnp.eye(upper.shape[0], dtype=upper.dtype)


def _all_pairs(block: SampleCovariances, dtype) -> Block:
    frames, blank = block.frames, jnp.zeros(block.covariance.shape, dtype)
    return Block(frames[:, None], frames[None, :], block.angle, blank, blank)


def _within(kept: Float[Array, "frame"], matrix, outside: float):
    """The matrix between the frames that count, and `outside` · 1 among the others."""
    both = kept[:, None] * kept
    return jnp.where(both > 0, matrix, 0.0) + outside * jnp.diag(1 - kept)


class SpeckleLikelihood(AbstractObjective):
    """−log L of the pixels, in physical parameters, scaling coefficients and levels of shot noise.

    The cost is half the deviance, −log L less its value at the sample covariance itself (or, where
    that is no covariance, at what is next to it): of the size of half a χ². The normal equations
    hold its gradient and Fisher's information, ½N tr(K⁻¹∂K K⁻¹∂K), in the place of JᵀJ.

    - `term`: model, maps and times; its scaling is a `ShotScaling`.
    - `blocks`: sample covariances C = c2 − 1; `begin`: physical variables at the start.
    """

    variables: JointVariables  # pyright: ignore[reportIncompatibleVariableOverride]
    term: TwoTimeTerm
    penalties: tuple[AbstractPenalty, ...]
    blocks: SampleCovariances
    begin: Float[np.ndarray, "variable"]

    @property
    def known_diagonal(self) -> Bool[np.ndarray, "angle"]:
        """Angles whose diagonal is that of the data; elsewhere a fit before has made it."""
        return self.of_angles(self.blocks.known) > 0

    @property
    def n_pixels(self) -> Float[np.ndarray, "angle"]:
        """Number of pixels at each angle."""
        return self.of_angles(self.blocks.n_pixels)

    @property
    def n_blocks(self) -> int:
        """Blocks of frames of each angle."""
        return self.blocks.angle.shape[0] // self.shot_scaling.given.shape[0]

    def of_angles(self, of_blocks: Float[Array, "block"]) -> Float[np.ndarray, "angle"]:
        """What all blocks of an angle have alike, by angle."""
        return np.asarray(of_blocks)[:: self.n_blocks]

    @property
    def scaling_penalties(self) -> tuple[()]:
        """None: contrast and offset follow from the data."""
        return ()

    @property
    def traceable(self):
        return True

    @property
    def physical(self) -> ParameterMap:
        """The map of the free physical parameters, which come first among the variables."""
        return self.variables.parameters

    @property
    def noise(self) -> Float[Array, ""]:
        """One: the cost is in units of probability already."""
        return jnp.ones(())

    @property
    def start(self):
        return jnp.asarray(self.begin)

    @property
    def names(self):
        return self.physical.free_names + self.term.scaling.names

    def about(self):
        return self.term.about("likelihood of speckle")

    def table(self):
        return self.physical.table()

    @property
    def memo(self):
        # The equations of each angle, of which error bars are made without another evaluation.
        return NormalEquations.zero(self.physical.n_free + 3, self.shot_scaling.given.shape)

    @property
    def shot_scaling(self) -> ShotScaling:
        """The scaling with the levels of shot noise."""
        scaling = self.term.scaling
        assert isinstance(scaling, ShotScaling)
        return scaling

    def columns(self) -> Float[Array, "angle column variable"]:
        """From the variables to (coordinates, contrast, offset, shot noise) of each angle."""
        p, scaling = self.physical.n_free, self.shot_scaling
        count = scaling.constant.shape[0]
        own = jnp.broadcast_to(jnp.eye(p, p + scaling.size), (count, p, p + scaling.size))
        levels = jnp.concatenate([scaling.basis, scaling.shot_basis[:, None]], axis=1)
        blank = jnp.zeros((count, 3, p), levels.dtype)
        return jnp.concatenate([own, jnp.concatenate([blank, levels], axis=2)], axis=1)

    def levels(self, y: Float[Array, "variable"]) -> Float[Array, "angle 3"]:
        """Contrast, offset and shot noise of each angle."""
        return self.shot_scaling.levels(y[self.physical.n_free :])

    def angle_equations(self, y: Float[Array, "variable"]) -> NormalEquations:
        """Equations of each angle for (coordinates, contrast, offset, shot noise)."""
        table, levels = self.term.table(y[: self.physical.n_free]), self.levels(y)

        def one(inputs):
            return _equations(table, *inputs)

        # One after another: matrices of LAPACK are not for batches.
        found = jax.lax.map(one, (levels[self.blocks.angle], self.blocks))
        count = levels.shape[0]
        return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]).sum(axis=1), found)

    def evaluate(self, y, memo):
        del memo
        parts = self.angle_equations(y)
        return self.together(parts) + self.penalty(y), parts

    def together(self, parts: NormalEquations) -> NormalEquations:
        """The equations of the variables from those of each angle."""
        columns = self.columns()
        return NormalEquations(
            jnp.sum(parts.cost),
            jnp.einsum("ac,acv->v", parts.gradient, columns),
            jnp.einsum("acv,acd,adw->vw", columns, parts.hessian, columns),
            jnp.sum(parts.count),
        )

    def cost(self, y, memo):
        del memo
        table = self.term.table(y[: self.physical.n_free], False)
        return half_deviance(table, self.levels(y), self.blocks) + self.penalty(y).cost

    def with_diagonal_of(self, y: Float[Array, "variable"]) -> "SpeckleLikelihood":
        """The same begun at `y`, with the diagonal expected there where that of the data is not.

        It is the one that the other entries imply: the diagonal of K plus the regression of its
        scatter on theirs, so that in the end all that they say is used, and nothing else. Shot
        noise and number of pixels are those that make their scatter most likely.
        """
        old, known, count = self.blocks, self.known_diagonal, self.n_blocks
        kept, covariance = np.asarray(old.kept) > 0, np.array(old.covariance)
        signal = np.asarray(_signals(self, y))
        shot, pixels = np.array(self.shot_scaling.given), np.array(self.n_pixels)
        for a in np.flatnonzero(~known):
            own = {b: np.flatnonzero(kept[b]) for b in range(a * count, (a + 1) * count)}
            own = {b: frames for b, frames in own.items() if frames.size > 1}
            some = {b: np.ix_(*[frames[:_ENOUGH_FRAMES]] * 2) for b, frames in own.items()}
            found = [of_scatter(covariance[b][one], signal[b][one]) for b, one in some.items()]
            shot[a], pixels[a] = np.mean(found, axis=0)
            for b, frames in own.items():
                every = np.ix_(frames, frames)
                expected = signal[b][every] + shot[a] * np.eye(frames.size)
                inverse = np.linalg.inv(expected)
                added, _ = completed(inverse, off_diagonal(covariance[b][every] - expected))
                covariance[b, frames, frames] = np.diagonal(expected) + added
        shape = (known.size, count)
        blocks = SampleCovariances.of(
            covariance.reshape(*shape, *covariance.shape[1:]),
            kept.reshape(*shape, -1),
            known,
            pixels,
            np.asarray(old.frames)[:count],
        )
        scaling = dataclasses.replace(self.shot_scaling, given=jnp.asarray(shot))
        term = dataclasses.replace(self.term, scaling=scaling)
        begin = np.asarray(self.variables.to_physical(y))
        begin = np.clip(begin, self.variables.lower, self.variables.upper)
        return dataclasses.replace(self, term=term, blocks=blocks, begin=begin)

    def with_maps(self, c2: Float[Array, "angle frame frame"]) -> "SpeckleLikelihood":
        """The same for other maps, whose diagonals stay; differentiable by them."""

        def one(block):
            map_ = c2[block.angle][block.frames[:, None], block.frames[None, :]]
            own = jnp.diag(jnp.diagonal(block.covariance))
            return _within(block.kept, _symmetric(map_ - 1, 0.0) + own, 1.0)

        old = self.blocks
        covariance = jax.lax.map(one, old)
        floor = _floors(covariance, old.n_pixels)
        blocks = dataclasses.replace(old, covariance=covariance, floor=floor)
        return eqx.tree_at(lambda o: (o.term.tiles.c2, o.blocks), self, (c2, blocks))

    def penalty(self, y: Float[Array, "variable"]) -> NormalEquations:
        """Equations of the penalties on the physical parameters."""
        p = self.physical.n_free
        own = penalty_equations(self.penalties, self.physical, y[:p], self.noise)
        return own.transform(jnp.eye(p, y.shape[0]))


@quick_jit
def _signals(likelihood: SpeckleLikelihood, y) -> Float[Array, "block frame frame"]:
    """K of each block without shot noise, all frames as if they counted."""
    table = likelihood.term.table(y[: likelihood.physical.n_free], False)
    levels = likelihood.levels(y)

    def one(block):
        contrast, offset, _ = levels[block.angle]
        correlation = block_correlation(table, _all_pairs(block, y.dtype))
        return offset - 1 + contrast * _symmetric(correlation, 1.0)

    return jax.lax.map(one, likelihood.blocks)


def _covariance(correlation, level, block: SampleCovariances):
    """K of a block from |c1|² and (contrast, offset, shot noise)."""
    contrast, offset, shot = level
    shots = shot * jnp.eye(correlation.shape[0], dtype=correlation.dtype)
    return _within(block.kept, offset - 1 + contrast * correlation + shots, 1.0)


def _factor(matrix):
    # Not finite where the matrix is no covariance: the step that led there is refused.
    return jnp.linalg.cholesky(matrix)


def _solved(factor, right):
    return jax.scipy.linalg.cho_solve((factor, True), right)


def _half_deviance(factor, solved, block: SampleCovariances):
    log_determinant = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
    return 0.5 * block.n_pixels * (log_determinant + jnp.trace(solved)) - block.floor


def _slope(inverse, solved, block: SampleCovariances):
    """The derivative of −log L by the entries of K, with K⁻¹ and K⁻¹C."""
    return 0.5 * block.n_pixels * (inverse - solved @ inverse)


# One after another in a batch: triangular solves of batches take a hundred times as long.
@jax.custom_batching.sequential_vmap
def _value(matrix, block: SampleCovariances):
    factor = _factor(matrix)
    return _half_deviance(factor, _solved(factor, block.covariance), block)


@jax.custom_batching.sequential_vmap
def _value_and_slope(matrix, block: SampleCovariances):
    factor = _factor(matrix)
    inverse = _solved(factor, jnp.eye(matrix.shape[0], dtype=matrix.dtype))
    solved = inverse @ block.covariance
    return _half_deviance(factor, solved, block), _slope(inverse, solved, block), inverse


# A gradient of the factorisation itself would cost several times as much.
@jax.custom_jvp
def _of_matrix(matrix, block: SampleCovariances):
    return _value(matrix, block)


@_of_matrix.defjvp
def _of_matrix_derivative(primals, tangents):
    (_, block), (moved, data) = primals, tangents
    value, slope, inverse = _value_and_slope(*primals)
    by_pixels = (value + block.floor) / block.n_pixels
    by_data = 0.5 * block.n_pixels * jnp.sum(inverse * data.covariance)
    change = jnp.sum(slope * moved) + by_data + by_pixels * data.n_pixels - data.floor
    return value, change


def half_deviance(
    table: FrameTable, levels: Float[Array, "angle 3"], blocks: SampleCovariances
) -> Float[Array, ""]:
    """−log L of all blocks less its least value, from features and (contrast, offset, shot noise).

    Its gradient takes one factorisation a block, as the value does.
    """

    def one(block):
        level = levels[block.angle]
        correlation = block_correlation(table, _all_pairs(block, level.dtype))
        return _of_matrix(_covariance(_symmetric(correlation, 1.0), level, block), block)

    return jnp.sum(jax.lax.map(one, blocks))


class AtPoint(NamedTuple):
    """The expected covariance K of a block, its inverse, and K's derivative by each column."""

    matrix: Float[Array, "frame frame"]
    factor: Float[Array, "frame frame"]
    inverse: Float[Array, "frame frame"]
    derivatives: Float[Array, "column frame frame"]


def at_point(table: FrameTable, level, block: SampleCovariances) -> AtPoint:
    n, dtype = block.kept.size, level.dtype
    ones = jnp.ones((n, n), dtype)
    correlation, columns = block_columns(table, _all_pairs(block, dtype), ones)
    correlation = _symmetric(correlation, 1.0)
    matrix = _covariance(correlation, level, block)
    factor = _factor(matrix)
    derivatives = jnp.stack(
        [
            *(_within(block.kept, _symmetric(level[0] * one, 0.0), 0.0) for one in columns),
            _within(block.kept, correlation, 0.0),
            _within(block.kept, ones, 0.0),
            jnp.diag(block.kept),
        ]
    )
    return AtPoint(matrix, factor, _solved(factor, jnp.eye(n, dtype=dtype)), derivatives)


def turned_derivatives(
    at: AtPoint, kept: Float[Array, "frame"]
) -> Float[Array, "column frame frame"]:
    """K⁻¹∂K by each column. By the offset ∂K is 11ᵀ, and 1 by the shot noise: no products."""
    products = jax.lax.map(lambda one: at.inverse @ one, at.derivatives[:-2])
    by_offset = jnp.outer(at.inverse @ kept, kept)
    return jnp.concatenate([products, by_offset[None], (at.inverse * kept)[None]])


def traces_of_products(
    turned: Float[Array, "column frame frame"],
) -> Float[Array, "column column"]:
    """tr(T_a T_b) of each two matrices; of K⁻¹∂K it is 2/N times Fisher's information."""
    flat = turned.reshape(turned.shape[0], -1)
    return flat @ jnp.swapaxes(turned, 1, 2).reshape(flat.shape).T


def _equations(table: FrameTable, level, block: SampleCovariances) -> NormalEquations:
    at = at_point(table, level, block)
    solved = at.inverse @ block.covariance
    slope = _slope(at.inverse, solved, block)
    turned = turned_derivatives(at, block.kept)
    frames = jnp.sum(block.kept)
    return NormalEquations(
        _half_deviance(at.factor, solved, block),
        jnp.einsum("ij,cij->c", slope, at.derivatives),
        0.5 * block.n_pixels * traces_of_products(turned),
        0.5 * frames * (frames - 1) + block.known * frames,
    )


@jax.jit
def _floors(covariance: Float[Array, "block frame frame"], n_pixels: Float[Array, "block"]):
    """The least −log L that any K with eigenvalues of at least the least shot noise could have."""

    def one(inputs):
        matrix, pixels = inputs
        values = jnp.linalg.eigvalsh(matrix)
        best = jnp.maximum(values, SHOT_BOUNDS[0])
        return 0.5 * pixels * jnp.sum(jnp.log(best) + values / best)

    return jax.lax.map(one, (covariance, n_pixels))


def kept_frames(tiles: MapTiles) -> Bool[np.ndarray, "angle frame"]:
    """Which frames of each map count.

    **Raises:** `ModelError` where pairs are masked other than by whole frames.
    """
    count, n = tiles.c2.shape[:2]
    if tiles.root_weights is None:
        return np.ones((count, n), bool)
    kept = np.zeros((count, n), bool)
    for a in range(count):
        used = np.triu(np.asarray(tiles.root_weights[a]), 1) > 0
        used = used | used.T
        kept[a] = used.any(axis=0)
        whole = np.outer(kept[a], kept[a])
        np.fill_diagonal(whole, False)
        if not np.array_equal(used, whole):
            raise ModelError(
                f"angle {a}: {int(np.count_nonzero(whole & ~used)) // 2} pairs are masked one by "
                "one (NaN, a limit of lag or age, or a part of the map), and the likelihood of "
                "speckle takes frames in or leaves them out whole: leave out the frames, or use "
                "least squares"
            )
    return kept


def speckle_likelihood(
    term: TwoTimeTerm,
    x: Float[np.ndarray, "free"],
    coefficients: Float[np.ndarray, "coefficient"],
    shot: Float[np.ndarray, "angle"],
    n_pixels: Float[np.ndarray, "angle"],
    diagonal: Float[np.ndarray, "angle frame"],
    known_diagonal: Bool[np.ndarray, "angle"],
    penalties: tuple[AbstractPenalty, ...] = (),
    frames: int | None = None,
) -> SpeckleLikelihood:
    """The likelihood of the maps of a term, from where it begins.

    **Arguments:**

    - `x`, `coefficients`: physical parameters and scaling coefficients at the start.
    - `shot`, `n_pixels`: level of shot noise at the start, and number of pixels, at each angle.
    - `diagonal`: c2 of each frame with itself; `known_diagonal`: where it is that of the data.
        Elsewhere the level of shot noise is no variable (`SpeckleLikelihood.with_diagonal_of`).
    - `frames`: the most that a block may have; maps with more are cut into blocks.

    **Raises:** `ModelError` for data that are no maps in memory, and as `kept_frames`.
    """
    tiles = on_one_device(term.tiles)
    if not isinstance(tiles, MapTiles):
        raise ModelError(
            "the likelihood of speckle needs whole maps in memory, and these data are points, or "
            "maps in a file: use least squares"
        )
    kept = kept_frames(tiles)
    count, n = tiles.c2.shape[:2]
    numbers, there = blocks_of_frames(n, frames)
    covariance = np.empty((count, *numbers.shape, numbers.shape[1]))
    for a in range(kept.shape[0]):
        c = np.triu(np.asarray(tiles.c2[a], dtype=float), 1)
        c = c + c.T - 1
        c[np.arange(n), np.arange(n)] = diagonal[a] - 1
        out = ~kept[a]
        c[out], c[:, out] = 0.0, 0.0
        if not np.isfinite(c).all():
            raise ModelError(f"angle {a}: the map has entries that are not finite")
        covariance[a] = c[numbers[:, :, None], numbers[:, None, :]]
    kept = kept[:, numbers] & there
    covariance[~(kept[..., None] & kept[..., None, :])] = 0.0
    covariance += (~kept)[..., None] * np.eye(numbers.shape[1])
    shot, known = np.clip(shot, *SHOT_BOUNDS), np.asarray(known_diagonal)
    fitted = tuple(np.flatnonzero(known).tolist())
    scaling = ShotScaling(term.scaling, jnp.asarray(np.where(known, np.nan, shot)), fitted)
    low, high = (np.asarray(side) for side in scaling.bounds)
    parameters = term.parameters
    scale = np.concatenate([np.full(scaling.inner.size, 0.1), shot[known]])
    variables = JointVariables(
        parameters=parameters,
        lower=np.concatenate([parameters.lower, low]),
        upper=np.concatenate([parameters.upper, high]),
        coordinate_scale=np.concatenate([parameters.coordinate_scale, scale]),
    )
    own = np.clip(np.concatenate([coefficients, shot[known]]), low, high)
    begin = np.concatenate([x, own])
    # The noise is that of speckle, whatever sigma was given.
    term = dataclasses.replace(term, scaling=scaling, tiles=tiles, absolute_sigma=False)
    return SpeckleLikelihood(
        variables=variables,
        term=term,
        penalties=penalties,
        blocks=SampleCovariances.of(covariance, kept, known, n_pixels, numbers),
        begin=begin,
    )
