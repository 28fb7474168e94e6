"""Weights of the angles by how much shear moves their maps."""

from typing import Annotated, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from ..arguments import Share, Within, check_fields
from ..compiling import quick_jit
from ..errors import ModelError
from ..objective import MapTiles, StoredTiles, TwoTimeObjective
from ..parameters import parameter_values
from ..physics import TwoComponent

AnyObjective = TypeVar("AnyObjective", bound=TwoTimeObjective)


class ShearWeights(eqx.Module):
    """w(φ) = w_min + (1 − w_min)·|cos(φ0 − φ)|^α, normalised to a sum of n_φ.

    Angles along the flow say most about the shear rate, those across it nothing. The shear term is
    even in the cosine, so weights that are right for one flow direction are right for the opposite
    one. They do not bias a fit of a right model, and they cost efficiency: with equal noise the
    unweighted fit has the smallest error bars. What they buy is emphasis, where the model does not
    describe the angles across the flow. Error bars stay right, since the sandwich counts weights;
    the classical covariance takes them for 1/variance and is not.

    - `minimum`: w_min, in 0 … 1; `exponent`: α.

    **Raises:** `ModelError` for numbers outside their range.
    """

    minimum: Share = 0.3
    exponent: Annotated[float, Within(ge=0)] = 1.0

    __check_init__ = check_fields

    def __call__(
        self, phi: Float[Array | np.ndarray, "angle"], phi0: ScalarLike
    ) -> Float[Array, "angle"]:
        """Weights of the angles `phi` for a flow along `phi0`, both in degrees."""
        cosine = jnp.abs(jnp.cos(jnp.deg2rad(phi0 - jnp.asarray(phi))))
        # A power of zero has no slope there.
        safe = jnp.where(cosine > 0, cosine, 1.0)
        power = jnp.where(cosine > 0, safe**self.exponent, jnp.where(self.exponent == 0, 1.0, 0.0))
        weights = self.minimum + (1 - self.minimum) * power
        return jnp.asarray(weights * (weights.shape[0] / jnp.sum(weights)))


@quick_jit
def _weights(rule, parameters, x, phi):
    phi0 = parameter_values(parameters.build(x))["phi0"]
    return rule(phi, phi0), phi0


def _map_tiles(objective: TwoTimeObjective) -> MapTiles | StoredTiles:
    tiles = objective.term.tiles
    if not isinstance(tiles, MapTiles | StoredTiles):
        raise ModelError(
            f"shear weights weigh whole maps; the data are {type(tiles).__name__}: leave them out, "
            "or give angle_weights when the objective is made"
        )
    return tiles


def check_shear_weights(objective: TwoTimeObjective) -> None:
    """Refuse data and models for which shear weights mean nothing.

    **Raises:** `ModelError`.
    """
    parameters = objective.term.parameters
    name = type(parameters.model).__name__
    if "phi0" not in parameters.names or isinstance(parameters.model, TwoComponent):
        raise ModelError(
            f"shear weights need the flow angle phi0 of a model of laminar flow, which {name} has "
            "not; leave them out"
        )
    _map_tiles(objective)


def with_shear_weights(
    objective: AnyObjective,
    rule: ShearWeights,
    x: Float[np.ndarray, "free"],
) -> tuple[AnyObjective, Float[np.ndarray, "angle"], float]:
    """The objective with its angle weights times those for the flow angle at parameters `x`.

    Nothing is compiled anew.

    **Returns:** the objective, the shear weights and φ0 [degrees].

    **Raises:** `ModelError` as `check_shear_weights`.
    """
    check_shear_weights(objective)
    term = objective.term
    weights, phi0 = (np.asarray(a) for a in _weights(rule, term.parameters, x, term.geometry.phi))
    base = _map_tiles(objective).root_angle_weights
    root = np.asarray(base) * np.sqrt(weights)
    # An array of NumPy or of JAX as before: with the other kind everything would compile anew.
    new = root if isinstance(base, np.ndarray) else jnp.asarray(root)
    out = eqx.tree_at(lambda o: o.term.tiles.root_angle_weights, objective, new)
    return out, weights, float(phi0)
