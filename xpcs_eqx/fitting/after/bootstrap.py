"""Errors from the fit itself: simulated from what it found, and fitted again, many times."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ...arguments import Within, checked, quiet_arithmetic
from ...errors import FitError, ModelError
from ...objective import AbstractObjective, MapTiles
from ...objective.combined import parts_of, with_terms
from ...optimize import TrustRegion
from ...physics import correlation_map
from ...simulation import simulate_speckle
from ..fit import Fit
from ..least_squares import least_squares
from ..likelihood import believed_diagonal

# Pixels of a simulation, at most: with so many, maps scatter nearly as a Gaussian, and those of
# more pixels scatter in the same way, by less.
_PIXELS = 4000
# Errors are too small where those of simulated maps are larger by this factor, beyond so many
# standard deviations that the number of maps leaves to chance.
_LARGER, _CHANCE = 1.25, 3.0
# Below this shot noise a pixel has so many counts that none is added.
_NO_SHOT = 1e-6


class Bootstrap(NamedTuple):
    """Fits of maps simulated from a fit.

    - `names`: of the fitted numbers; `fitted`: those that the maps were simulated from.
    - `values`: of each fit that converged, a row; `failed`: how many did not.
    """

    names: tuple[str, ...]
    fitted: Float[np.ndarray, "entry"]
    values: Float[np.ndarray, "fit entry"]
    failed: int

    @property
    def covariance(self) -> Float[np.ndarray, "entry entry"]:
        """Covariance of the fitted numbers."""
        return np.cov(self.values, rowvar=False)

    @property
    def errors(self) -> Float[np.ndarray, "entry"]:
        """Their standard deviations."""
        return np.std(self.values, axis=0, ddof=1)

    @property
    def bias(self) -> Float[np.ndarray, "entry"]:
        """By how much their mean lies above what the maps were simulated from."""
        return np.mean(self.values, axis=0) - self.fitted

    def doubts(self, fit: Fit) -> tuple[str, ...]:
        """A sentence on errors of free parameters that `fit` quotes and that are too small."""
        chance = _CHANCE / np.sqrt(2 * (len(self.values) - 1))
        found = dict(zip(self.names, self.errors, strict=True))
        quoted = {name: fit[name].error for name in fit.objective.physical.free_names}
        # One on a bound has no error.
        small = [
            f"{name} by a factor of {found[name] / error:.2g}"
            for name, error in quoted.items()
            if found[name] * (1 - chance) > _LARGER * error > 0
        ]
        said = "fits of simulated maps scatter more than the quoted errors say: " + ", ".join(small)
        return (said,) if small else ()

    def interval(self, name: str, level: float = 0.6827) -> tuple[float, float]:
        """The interval of a number by the quantiles of its deviations.

        **Raises:** `ModelError` for an unknown name, or a level outside (0, 1).
        """
        if name not in self.names:
            raise ModelError(f"no {name!r} was fitted; there are {', '.join(self.names)}")
        if not 0 < level < 1:
            raise ModelError(f"level is {level:g}; give a number between 0 and 1")
        k = self.names.index(name)
        off = np.quantile(self.values[:, k] - self.fitted[k], [(1 + level) / 2, (1 - level) / 2])
        return float(self.fitted[k] - off[0]), float(self.fitted[k] - off[1])


class Replica(NamedTuple):
    """How maps of one data set are simulated.

    - `simulate`: from a key; `scatter`: what that of each angle is multiplied by, since all angles
        are simulated with one number of pixels, 4000 at most.
    - `surface`: what the maps scatter about at offset one; `shift`: from there to the offsets.
    - `unused`: where there is no raw diagonal, or none that could be used.
    """

    simulate: Callable[..., Any]
    scatter: Float[np.ndarray, "angle 1"]
    surface: Float[np.ndarray, "angle frame frame"]
    shift: Float[np.ndarray, "angle 1"]
    unused: Bool[np.ndarray, "angle frame"]

    def drawn(self, key: Array) -> tuple[Array, Array]:
        """Maps, and their raw diagonals."""
        data = self.simulate(key=key)
        maps = self.surface + self.scatter[..., None] * (data.c2 - self.surface)
        middle = jnp.diagonal(self.surface, axis1=1, axis2=2)
        diagonal = middle + self.scatter * (data.diagonal - middle)
        diagonal = jnp.where(self.unused, jnp.nan, diagonal + self.shift)
        return maps + self.shift[..., None], diagonal


def replica_of(part: Fit) -> Replica:
    """How maps are simulated from the fit of a data set.

    **Raises:** as `bootstrap`.
    """
    term, noise = part.objective.term, part.uncertainty
    if not isinstance(term.tiles, MapTiles):
        raise ModelError(
            "a bootstrap simulates whole maps in memory, and these data are points, or maps in a "
            "file: take the errors of the fit, or posteriors"
        )
    contrast, shot = np.asarray(part.contrast), np.asarray(noise.shot_noise)
    pixels = np.asarray(noise.n_pixels)
    if not np.all(np.isfinite(pixels) & (pixels > 1) & np.isfinite(shot)):
        raise FitError(
            f"the fit has found no number of independent pixels ({pixels.tolist()}), from which "
            'maps could be simulated; make all errors, errors="all"'
        )
    wrong = np.flatnonzero((contrast <= 0) | (contrast > 1))
    if wrong.size:
        raise FitError(
            f"the contrast of angle {wrong[0]} is {contrast[wrong[0]]:g}, and speckle has one "
            "above 0 and at most 1: there is nothing to simulate"
        )
    common = max(2, round(min(float(np.exp(np.mean(np.log(pixels)))), _PIXELS)))
    counts = None if np.all(shot <= _NO_SHOT) else 1 / np.maximum(shot, _NO_SHOT)
    simulate = partial(
        simulate_speckle, part.model, term.t, term.geometry, contrast,
        n_pixels=common, mean_counts=counts,
    )  # fmt: skip
    correlation = np.asarray(correlation_map(part.model, term.t, term.geometry))
    surface = 1 + contrast[:, None, None] * correlation
    # What a pixel has with itself.
    surface = surface + shot[:, None, None] * np.eye(surface.shape[1])
    scatter = np.sqrt(common / pixels)[:, None]
    shift = np.asarray(part.offset)[:, None] - 1
    unused = np.ones(surface.shape[:2], bool)
    if term.diagonal is not None:
        believed = believed_diagonal(part, term)
        unused = ~(np.isfinite(np.asarray(term.diagonal)) & believed[:, None])
    return Replica(jax.jit(simulate), scatter, surface, shift, unused)


@checked()
@quiet_arithmetic
def bootstrap(
    fit: Fit,
    replicas: Annotated[int, Within(ge=2)] = 200,
    *,
    then: Callable[[Fit], Fit] | None = None,
    solver: TrustRegion | None = None,
    seed: int = 0,
    callback: Callable[[int], Any] | None = None,
) -> Bootstrap:
    """Find errors by simulating maps from what a fit has found and fitting these (parametric).

    Speckle is simulated with the model, contrast, number of pixels and shot noise of the fit; pairs
    that it leaves out are left out again. It takes as long as so many fits, and is for errors that
    no formula has: of estimates that are not normal, of small maps, or to check those of the fit.

    **Arguments:**

    - `fit`: by least squares, of one data set of maps in memory or of several together.
    - `replicas`: how many maps are simulated.
    - `then`: what follows least squares, `xe.maximum_likelihood` for example: the errors are then
        those of its result, and maps are simulated from that.
    - `solver`: of the fits by least squares.
    - `seed`: of the simulations.
    - `callback`: called with the number of fits made so far; a true value ends it.

    **Returns:** a `Bootstrap`.

    **Raises:** `ModelError` for data that are no maps in memory, or fewer than two replicas;
    `FitError` for a fit that says nothing of the noise or has no contrast, and where fewer than two
    fits converge. What `then` raises is raised.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> truth = xe.Static(xe.PowerLawRate(5e4, 0.0, 0.0))
    >>> t, geometry = 0.1 * np.arange(20), xe.Geometry(0.0054, np.array([0.0]))
    >>> data = xe.simulate_speckle(
    ...     truth, t, geometry, 0.25, n_pixels=1000, mean_counts=5.0, key=jax.random.key(0)
    ... )
    >>> start = xe.parameter_map(truth, data.t, fixed=("alpha", "D_offset"))
    >>> fit = xe.least_squares(xe.projected_objective(start, data))
    >>> found = xe.fitting.bootstrap(fit, 12)
    >>> found.values.shape, found.failed
    ((12, 3), 0)
    >>> bool(abs(np.log(found.errors[2] / fit["D0"].error)) < 0.5)
    True
    """
    if not fit.parts:
        raise ModelError("a bootstrap is for fits of maps, and this is one of a curve")
    at = fit if then is None else then(fit)
    each = [replica_of(part) for part in at.parts.values()]
    # Without further steps nothing else is asked of the fits.
    errors = "classical" if then is None else "all"
    start = np.asarray(fit.x)
    values, failed = [], 0
    for k, key in enumerate(jax.random.split(jax.random.key(seed), replicas)):
        objective = _with_maps(fit.objective, each, key)
        found = least_squares(objective, start, solver=solver, errors=errors)
        found = found if then is None else then(found)
        if found.success:
            # After the likelihood of speckle there are levels of shot noise as well.
            values.append([found[name].value for name in fit.names])
        else:
            failed += 1
        if callback is not None and callback(k + 1):
            break
    if len(values) < 2:
        raise FitError(f"of {len(values) + failed} simulated maps {failed} could not be fitted")
    fitted = np.array([at[name].value for name in fit.names])
    return Bootstrap(tuple(fit.names), fitted, np.array(values), failed)


def _with_maps(objective: AbstractObjective, each: list[Replica], key: Array) -> AbstractObjective:
    """The objective with simulated maps in place of those of each data set."""
    keys = jax.random.split(key, len(each))
    drawn = [one.drawn(own) for one, own in zip(each, keys, strict=True)]
    tiles, diagonals = [], []
    for part, (c2, diagonal) in zip(parts_of(objective), drawn, strict=True):
        tiles.append(eqx.tree_at(lambda one: one.c2, part.term.tiles, c2))
        diagonals.append(part.term.diagonal if part.term.diagonal is None else diagonal)
    return with_terms(objective, tiles=tiles, diagonal=diagonals)
