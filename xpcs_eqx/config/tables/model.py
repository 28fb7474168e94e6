"""The tables `[model]`, `[rates.NAME]` and `[parameters.NAME]`: what describes the data."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from ... import physics
from ...data import Geometry
from ...errors import ConfigError, ModelError
from ...parameters import with_parameters
from ...physics.rates import rates_in
from ...scaling import half_decays
from ..section import (
    SET,
    UNSET,
    Bounds,
    Choice,
    Finite,
    Positive,
    Section,
    When,
    check_order,
    choice_of,
    key,
)
from ..source import nearest, shown

if TYPE_CHECKING:
    from ..read import Configuration
    from .data import Given

MODES = Choice(
    static_isotropic=physics.Static,
    static=physics.Static,
    static_anisotropic=physics.Static,
    laminar_flow=physics.LaminarFlow,
    two_component=physics.TwoComponent,
    stretched_exponential=physics.StretchedExponential,
    double_exponential=physics.DoubleExponential,
    ballistic=physics.Ballistic,
    caged=physics.Caged,
)
# Whose default starts are those of homodyne 2.x; all others begin where the data decay.
_AT_DEFAULTS = (physics.Static, physics.LaminarFlow, physics.TwoComponent)
KERNELS = choice_of(physics, physics.AbstractShearKernel)
# Any function cannot be written in a file; the trapezoid is a way to integrate another rate.
RATES = choice_of(
    physics, physics.AbstractRate, "Rate", without=(physics.FunctionRate, physics.Trapezoid)
)
SPACINGS = Choice(uniform=physics.uniform_knots, log=physics.log_knots)
INTEGRALS = Choice(exact=None, trapezoid=physics.Trapezoid)
# The first field of each rate: knots, or breaks of one in steps, where it has values at times.
_TIMES = {word: dataclasses.fields(one)[0].name for word, one in RATES.meant.items()}
AT_KNOTS = tuple(word for word, first in _TIMES.items() if first in ("knots", "breaks"))


class Model(Section):
    """What the data are described by."""

    mode: Annotated[str, MODES] = key(
        "laminar_flow",
        "static: contrast and offset for each angle; static_isotropic: one curve for all angles; "
        "static_anisotropic: another name of static; the last four: as one-time functions are "
        "usually fitted",
        shown=True,
    )
    kernel: Annotated[str, KERNELS] = key(
        "gap_averaged",
        "shear kernel; homodyne reproduces homodyne 2.x",
        when=(When("mode", ("laminar_flow",)),),
    )
    integral: Annotated[str, INTEGRALS] = key("exact", "time integral of the rates")


class Rate(Section):
    """A rate of the model as a function of time."""

    kind: Annotated[str, RATES] = key(
        "power_law", "spline: positive, of any smooth shape; exponential: ageing"
    )
    knots: int = key(
        12,
        "values in time that a spline or piecewise rate has",
        when=(When("kind", AT_KNOTS), When("times", UNSET)),
        ge=2,
        le=10_000,
    )
    spacing: Annotated[str, SPACINGS] = key(
        "uniform",
        "knots at equal distances, or at equal ratios of time",
        when=(When("kind", AT_KNOTS), When("times", UNSET)),
    )
    times: Annotated[list[Finite], Field(min_length=1, max_length=10_000)] | None = key(
        None,
        "the knots themselves, or where a rate in steps jumps [s]",
        expected="a list of times",
        example=[0.0, 10.0, 100.0],
        when=(When("kind", AT_KNOTS),),
    )
    smoothness: Positive | None = key(
        None,
        "penalty on second differences between knots, as the size expected of them: in ln J of "
        "positive rates, else in the unit of the rate",
        example=0.5,
        when=(When("kind", AT_KNOTS),),
    )

    @model_validator(mode="after")
    def _check(self) -> "Rate":
        if self.times is not None and sorted(set(self.times)) != self.times:
            raise ValueError(f"times = {shown(self.times)} must increase")
        return self


class Parameter(Section):
    """One parameter of the model; every key has a default by name."""

    start: Finite | None = key(None, "start value")
    bounds: Bounds | None = key(None, "bounds; equal ones fix it", when=(When("tie", UNSET),))
    free: bool = key(True, "false keeps it at its start")
    scale: Positive | None = key(None, "natural step", when=(When("tie", UNSET),))
    tie: Annotated[str, Field(min_length=1)] | None = key(
        None, "keeps it at factor times that parameter", expected="a parameter"
    )
    factor: Finite | None = key(None, "factor of the tie; 1 by default", when=(When("tie", SET),))

    @model_validator(mode="after")
    def _check(self) -> "Parameter":
        check_order("bounds", self.bounds, equal=True)
        if self.flat and "free" in self.model_fields_set:
            raise ValueError(
                f"free = true, but its bounds {self.bounds} leave no room; widen them, or leave "
                "out free to keep the parameter there"
            )
        if self.tie is not None and (self.start is not None or not self.free):
            raise ValueError("a tied parameter has no start of its own; leave out start and free")
        return self

    @property
    def flat(self) -> bool:
        """Whether bounds without volume keep it where it would be free."""
        return self.free and self.bounds is not None and self.bounds[0] == self.bounds[1]


def kept_by_bounds(parameters: Mapping[str, Parameter]) -> tuple[str, ...]:
    """What there is to say about parameters whose bounds leave them no room."""
    return tuple(
        f"{name} is kept at {one.bounds[0]:g}, since its bounds are equal; widen them to fit it"
        for name, one in parameters.items()
        if one.flat and one.bounds is not None
    )


def rates_of(mode: str) -> dict[str, physics.AbstractRate]:
    """The rates of a mode by name, at their default start values."""
    return rates_in(MODES[mode]())


def offsets_of(mode: str, rates: Mapping[str, Rate] = {}) -> tuple[str, ...]:
    """The offsets of power laws that a mode keeps at zero unless something is said of them."""
    model = MODES[mode]
    if model in _AT_DEFAULTS:
        return ()
    ageing = [name for name in rates_of(mode) if rates.get(name, Rate()).kind == "power_law"]
    return tuple(model.names[f"{name}.offset"] for name in ageing)


def begun_at_data(mode: str) -> tuple[str, ...]:
    """The parameters of a mode that start where the data decay."""
    model = MODES[mode]()
    if isinstance(model, _AT_DEFAULTS):
        return ()
    return tuple(model.starts(np.ones(1), Geometry(1.0, np.zeros(1))))


def kept_by_default(
    parts: Sequence["Configuration"], t: Float[np.ndarray, "frame"]
) -> tuple[dict[str, Parameter], tuple[str, ...]]:
    """Parameters that are kept where nothing is said of them, and what there is to say of that.

    `t` are the frame times of all data [s].
    """
    settings = parts[0].settings
    said = {name.partition("[")[0] for name in settings.parameters}
    modes = dict.fromkeys(part.settings.model.mode for part in parts)
    kept, decisions = {}, []
    if "two_component" in modes and "f2" not in said:
        # Only f0·exp(−f1·f2) enters; in the middle of the window f0 depends on f1 the least.
        kept["f2"] = Parameter(start=0.5 * float(t[0] + t[-1]), free=False)
        decisions.append(
            "f2 is kept at the middle of the time window, since only f0·exp(−f1·f2) enters"
        )
    for name in dict.fromkeys(name for one in modes for name in offsets_of(one, settings.rates)):
        if name not in said:
            kept[name] = Parameter(free=False)
            decisions.append(f"{name} is kept at 0; [parameters.{name}] free = true fits it")
    return kept, tuple(decisions)


def _rate(
    default: physics.AbstractRate, given: Rate, t: Float[np.ndarray, "frame"] | None
) -> physics.AbstractRate:
    """A rate of the kind asked for, constant at the start of the default."""
    if given.kind == "power_law":
        return default
    if t is None:
        raise ModelError(f"a rate of kind {given.kind!r} needs the frame times")
    kind, knots = RATES[given.kind], SPACINGS[given.spacing]
    assert isinstance(default, physics.PowerLawRate)
    start = float(np.asarray(default.amplitude))
    if given.kind not in AT_KNOTS:
        # A fall over the window: with initial = 0 or an endless tau nothing could be learnt.
        infos = filter(None, map(physics.parameter_info, dataclasses.fields(kind)[1:]))
        half = 0.5 * float(t[-1] - t[0])
        return kind(start, *(half if info.unit == "s" else info.start for info in infos))
    if given.times is not None:
        return kind(given.times, start)
    # A rate in steps jumps between the ends of the window.
    inside = _TIMES[given.kind] == "breaks"
    return kind(knots(t, given.knots + 1)[1:-1] if inside else knots(t, given.knots), start)


def model_of(
    given: Model,
    rates: Mapping[str, Rate] = {},
    t: Float[np.ndarray, "frame"] | None = None,
    data: "Given | None" = None,
) -> physics.AbstractCorrelation:
    """The model at its start values, those of its declaration or where the `data` decay.

    `rates` by name, power laws where nothing is said; others than those and exponential ageing
    have their knots inside the frame times `t` [s].

    **Raises:** `ModelError` for knots that do not make a rate.
    """
    model = MODES[given.mode]()
    if data is not None and not isinstance(model, _AT_DEFAULTS):
        model = with_parameters(model, model.starts(half_decays(data), data.geometry))
    made: dict[str, Any] = {
        name: _rate(default, rates.get(name, Rate()), t)
        for name, default in rates_in(model).items()
    }
    if around := INTEGRALS[given.integral]:
        made = {name: around(rate) for name, rate in made.items()}
    if given.mode == "laminar_flow":
        made["shear_kernel"] = KERNELS[given.kernel]()
    return dataclasses.replace(model, **made)


def model_for(
    configuration: "Configuration",
    t: Float[np.ndarray, "frame"],
    known: Collection[str],
    data: "Given",
) -> physics.AbstractCorrelation:
    """The model of the `data` at its start values, with knots inside the times `t` [s].

    `known` are the rates that the configuration may speak of.

    **Raises:** `ConfigError` for unknown rates and knots that do not make a rate.
    """
    settings = configuration.settings
    for name in settings.rates:
        if name not in known:
            raise ConfigError(
                f"{configuration.source.where(('rates', name))}: unknown rate {name!r} of mode "
                f"{settings.model.mode!r}{nearest(name, known, 'rates.')}"
            )
    with configuration.source.placed("rates", "[rates]"):
        return model_of(settings.model, settings.rates, t, data)
