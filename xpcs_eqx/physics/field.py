"""From a model's |c1|² to a Gaussian field that has this correlation."""

import dataclasses
from functools import singledispatch

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..data import Geometry
from .correlation import AbstractCorrelation, correlation_map
from .diffusion import AbstractShearKernel, GapAveraged, LaminarFlow
from .trigonometry import sinc
from .two_component import TwoComponent

# An error of |c1|² beyond this, where no field has the correlation, would be seen in a fit.
FIELD_TOLERANCE = 0.01


class _GapField(AbstractShearKernel):
    """sin x / x: the average of the field, not of the intensity, over a linear profile."""

    def __call__(self, x):
        return sinc(x)


@singledispatch
def field_correlation(
    model: AbstractCorrelation, t: Float[Array, "frame"], geometry: Geometry
) -> Inexact[Array, "angle frame frame"]:
    """c1 of the scattered field, 1 on the diagonal, Hermitian.

    A model states |c1|² only; the root √|c1|² is taken, with the sign of sin x / x for laminar
    flow with the gap-averaged kernel (a profile symmetric about the middle of the gap has a real
    field). With that sign c1 is positive definite: it is an average over particles, each of which
    contributes a pure phase. Without it the zeros of the sinc become kinks and no Gaussian field
    has this correlation. A model of your own whose field changes sign or is complex registers it:

        @field_correlation.register
        def _(model: MyModel, t, geometry): ...

    **Arguments:**

    - `model`: the model of |c1|².
    - `t`: frame times [s].
    - `geometry`: q [1/Å], azimuths [degrees], gap [Å].
    """
    return jnp.sqrt(correlation_map(model, t, geometry))


@field_correlation.register
def _(model: LaminarFlow, t, geometry):
    size = jnp.sqrt(correlation_map(model, t, geometry))
    if not isinstance(model.shear_kernel, GapAveraged):
        return size
    signed = dataclasses.replace(model, shear_kernel=_GapField())
    return jnp.where(correlation_map(signed, t, geometry) < 0, -size, size)


@field_correlation.register
def _(model: TwoComponent, t, geometry):
    features = model.features(jnp.asarray(t), geometry)
    slow, fast, path = (row[None, :] - row[:, None] for row in features.increments)
    reference, sample = (share[:, None] * share[None, :] for share in features.endpoints)
    # The motion turns the phase of one component against the other: the field is complex.
    turned = jnp.exp(1j * features.scalars[:, None, None] * path)
    return reference * jnp.exp(-jnp.abs(slow)) + sample * jnp.exp(-jnp.abs(fast)) * turned


def field_factor(
    c1: Inexact[Array, "*angle frame frame"],
) -> tuple[Inexact[Array, "*angle frame frame"], Float[Array, ""]]:
    """F with F F† = c1 and the largest error this makes in |c1|².

    Eigenvalues below zero are clipped and the rows scaled back to unit variance. For a true
    correlation these are rounding; a larger error says that no field has the correlation c1.
    """
    values, vectors = jnp.linalg.eigh(c1)
    factor = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[..., None, :]
    size = jnp.sqrt(jnp.sum(jnp.abs(factor) ** 2, axis=-1, keepdims=True))
    factor = factor / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    realised = factor @ jnp.conj(jnp.swapaxes(factor, -1, -2))
    error = jnp.max(jnp.abs(jnp.abs(realised) ** 2 - jnp.abs(c1) ** 2))
    return factor, error
