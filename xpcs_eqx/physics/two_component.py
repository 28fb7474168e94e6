"""Two components in one scattering volume, one of them moving past the other (heterodyne)."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, ScalarLike

from .correlation import AbstractCorrelation, Circumstances, Degeneracy, Features
from .diffusion import TRANSPORT, power_law_of, rate_names
from .leaves import ParameterInfo, parameter
from .rates import AbstractRate
from .trigonometry import cos_degrees, sincos

# Width of the soft clip, in units of the fraction.
CLIP_WIDTH = 0.01


def _transport_of(component: str, start: float) -> dict[str, ParameterInfo]:
    """The transport of the other models, its parameters named after a component."""
    power_law = [f"{name}_{component}" for name in ("D0", "alpha", "D_offset")]
    others = [f"J_{component}{suffix}" for suffix in ("", "_initial", "_tau")]
    infos = dict(zip((*power_law, *others), TRANSPORT.values(), strict=True))
    amplitude, rate = power_law[0], others[0]
    unit = f"Å²/s^(1+alpha_{component})"
    infos[amplitude] = infos[amplitude]._replace(unit=unit, start=start)
    infos[rate] = infos[rate]._replace(start=start)
    return infos


# Equal starts would make the two components one until rounding tells them apart.
REFERENCE = _transport_of("ref", 1e3)
SAMPLE = _transport_of("sample", 1e4)
VELOCITY = {
    "v0": ParameterInfo("Å/s^(1+v_beta)", 1e3, -1e6, 1e6),
    "v_beta": ParameterInfo("", 0.0, -2.0, 2.0),
    "v_offset": ParameterInfo("Å/s", 0.0, -1e5, 1e5, 100.0),
    "v": ParameterInfo("Å/s", 1e3, -1e7, 1e7),
    "v_initial": ParameterInfo("Å/s", 1e3, -1e7, 1e7),
    "v_tau": ParameterInfo("s", 10.0, 1e-6, 1e9),
}


def soft_clip(x: Float[Array, "..."], width: float = CLIP_WIDTH) -> Float[Array, "..."]:
    """`x` softly clipped to 0 … 1: w ln[(1 + exp(x/w)) / (1 + exp((x−1)/w))].

    Between 0 and 1 and smooth, with a gradient that leads back from either side, and
    soft_clip(1 − x) = 1 − soft_clip(x). Inside it departs from `x` by w exp(−d/w), with d the
    distance from the nearer end: by 5e-7 at d = 0.1.
    """
    # Above the middle from the other end: there the difference would round to a constant.
    upper = x > 0.5
    near = jnp.where(upper, 1 - x, x)
    low = width * (jax.nn.softplus(near / width) - jax.nn.softplus((near - 1) / width))
    return jnp.where(upper, 1 - low, low)


def _constant(model, here: Circumstances) -> bool:
    """Whether the fraction is the same over the window, as far as any map could tell."""
    share = np.asarray(_fraction(model, jnp.asarray(here.t)))
    return bool(np.ptp(share) <= 1e-3)


_fraction = eqx.filter_jit(lambda model, t: model.fraction(t))


def _swap(model, here):
    names = here.bounds
    moving = here.any_free("f0", "f3") and any(
        n.startswith(("D0_", "alpha_", "D_offset_", "J_")) for n in names
    )
    # 1 − f0 exp(…) − f3 has the same form with −f0, where the bounds let it.
    mirrored = "f0" in names and names["f0"][0] < 0
    return moving and (mirrored or _constant(model, here))


def _sign(model, here):
    return any(name.startswith("v") for name in here.bounds)


def _v_with_phi0(model, here):
    cosines = np.abs(np.cos(np.deg2rad(np.asarray(here.geometry.phi) + float(model.phi0))))
    one = np.ptp(cosines) < 1e-9
    return bool(one) and "phi0" in here.bounds and _sign(model, here)


DEGENERACIES = (
    Degeneracy(
        "f0 with f2",
        "only f0·exp(−f1·f2) enters: fix f2, at the middle of the time window say",
        lambda model, here: here.all_free("f0", "f2"),
        True,
    ),
    Degeneracy(
        "f0 with f3",
        "the fraction is constant over the time window and only f0 + f3 enters: fix f1, f2 and f3",
        lambda model, here: here.all_free("f0", "f3") and _constant(model, here),
        True,
    ),
    Degeneracy(
        "f1 at f0 = 0",
        "without f0 nothing depends on f1 and f2: start f0 elsewhere or fix f1 and f2",
        lambda model, here: here.any_free("f1", "f2") and float(model.f0) == 0.0,
        True,
    ),
    Degeneracy(
        "v0 with phi0 at a single angle",
        "only v·cos(phi + phi0) enters: fix phi0, or take more angles",
        _v_with_phi0,
        True,
    ),
    Degeneracy(
        "v with −v",
        "the velocity and its opposite give the same maps: its sign is that of the start",
        _sign,
        False,
    ),
    Degeneracy(
        "reference with sample",
        "exchanging the two, and the fraction with one minus it, gives the same maps: which is "
        "which is that of the start",
        _swap,
        False,
    ),
)


class TwoComponent(AbstractCorrelation):
    """A reference and a sample component, the sample moving at v(t) relative to the reference.

    With f_s(t) the `soft_clip` of f0·exp(f1·(t − f2)) + f3, f_r = 1 − f_s and
    H_x = exp(−½ q² |∫ J_x dt|), primes for the second frame,

    |c1|² = [(f_r f_r' H_r)² + (f_s f_s' H_s)² + 2 f_r f_r' f_s f_s' H_r H_s cos θ]
    / ((f_s² + f_r²)(f_s'² + f_r'²)), θ = q cos(φ + φ0) ∫ v dt;

    He et al., PNAS 121, e2401162121 (2024). v [Å/s] may have either sign; both J as in `Static`.

    Only f0·exp(−f1·f2) enters. The program therefore keeps f2 at the middle of the time window:
    f0 + f3 is then the fraction there, well determined and nearly independent of the trend f1.
    Fitting in Python, pass ``fixed=("f2",)`` to `parameter_map` and set f2 likewise. This and the
    other exact degeneracies are in `degeneracies`, and a fit names those that bite.
    """

    reference: AbstractRate = eqx.field(default_factory=power_law_of(REFERENCE))
    sample: AbstractRate = eqx.field(default_factory=power_law_of(SAMPLE))
    velocity: AbstractRate = eqx.field(default_factory=power_law_of(VELOCITY))
    f0: ScalarLike = parameter(start=0.5, bounds=(0.0, 1.0), scale=0.1)
    f1: ScalarLike = parameter(unit="1/s", start=0.0, bounds=(-10.0, 10.0), scale=0.1)
    f2: ScalarLike = parameter(unit="s", start=0.0, bounds=(-1e6, 1e6))
    f3: ScalarLike = parameter(start=0.0, bounds=(-1.0, 1.0), scale=0.1)
    phi0: ScalarLike = parameter(unit="deg", start=0.0, bounds=(-30.0, 30.0), scale=10.0)

    names: ClassVar[dict[str, str]] = {
        **rate_names("reference", REFERENCE),
        **rate_names("sample", SAMPLE),
        **rate_names("velocity", VELOCITY),
    }
    infos: ClassVar[dict[str, ParameterInfo]] = REFERENCE | SAMPLE | VELOCITY
    positive_rates: ClassVar[tuple[str, ...]] = ("reference", "sample")
    degeneracies: ClassVar[tuple[Degeneracy, ...]] = DEGENERACIES

    def fraction(self, t: Float[Array, "*time"]) -> Float[Array, "*time"]:
        """The share f_s of the sample component at times `t` [s]."""
        return soft_clip(jnp.asarray(self.f0 * jnp.exp(self.f1 * (t - self.f2)) + self.f3))

    def features(self, t, geometry):
        q = geometry.q
        sample = self.fraction(t)
        size = jnp.sqrt(sample**2 + (1 - sample) ** 2)
        return Features(
            increments=(
                0.5 * q**2 * self.reference.integral(t),
                0.5 * q**2 * self.sample.integral(t),
                q * self.velocity.integral(t),
            ),
            endpoints=((1 - sample) / size, sample / size),
            scalars=cos_degrees(jnp.asarray(geometry.phi + self.phi0)),
        )

    def kernel(self, pair):
        slow, fast, path = pair.increments
        reference = pair.first[0] * pair.second[0] * jnp.exp(-jnp.abs(slow))
        sample = pair.first[1] * pair.second[1] * jnp.exp(-jnp.abs(fast))
        _, cosine = sincos(pair.scalars * path)
        return reference**2 + sample**2 + 2 * reference * sample * cosine
