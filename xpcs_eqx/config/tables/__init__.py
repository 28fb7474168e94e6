"""The one schema of a configuration: keys, types, ranges, defaults, and what they mean.

Keys without a value here take the default of the class they configure, so that a default is
written down once. Nothing in this file needs JAX: a wrong key is reported at once.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from .schema_bayes import Bayes
from .schema_defences import Defences
from .schema_search import WithGlobal
from .schema_streaming import Hybrid, Streaming
from .section import Positive, Section, key

Mode = Literal["static_isotropic", "static", "static_anisotropic", "laminar_flow", "two_component"]
RateKind = Literal[
    "power_law",
    "spline",
    "signed_spline",
    "piecewise_constant",
    "piecewise_linear",
    "exponential",
]
ScalingMode = Literal[
    "auto", "individual", "averaged", "fixed", "fixed_averaged", "fourier", "auto_threshold"
]
Layout = Annotated[
    Literal["own", "aps-u", "aps-old", "nxxpcs", "npz", "npy"],
    # In Python a name would have an underscore; both are meant.
    BeforeValidator(lambda value: value.replace("_", "-") if isinstance(value, str) else value),
]
Loss = Literal["linear", "soft_l1", "huber", "cauchy", "arctan"]

Finite = Annotated[float, Field(allow_inf_nan=False)]
Pair = Annotated[list[Finite], Field(min_length=2, max_length=2)]
Bounds = Annotated[
    list[Annotated[float, Field(allow_inf_nan=True)]], Field(min_length=2, max_length=2)
]
PerAngle = Finite | Annotated[list[Finite], Field(min_length=1)]


def _ordered(name: str, bounds: list[float] | None, equal: bool = False) -> None:
    if bounds is None:
        return
    low, high = bounds
    if not (low < high or (equal and low == high)):
        raise ValueError(f"{name} = [{low:g}, {high:g}] are inside out: lower must be below upper")


class Data(Section):
    """What is fitted."""

    path: str = key(..., "a path", "file with two-time maps, relative to this file", min_length=1)
    layout: Layout | None = key(
        None, '"own", "aps-u", "aps-old", "nxxpcs", "npz" or "npy"', "layout; recognised by itself"
    )
    q: Positive | Annotated[list[Positive], Field(min_length=1)] | None = key(
        None,
        "a number above zero, or a list of such",
        "scattering vector [1/Å] to take, to 1 %; of bare maps (npy)",
    )
    q_tolerance: Positive | None = key(
        None, "a number above zero", "take all q bins within this distance [1/Å]"
    )
    phi: PerAngle | None = key(
        None, "a number, or one for each map", "azimuths [deg] of bare maps (npy) only"
    )
    frames: Annotated[list[int], Field(min_length=2, max_length=2)] | None = key(
        None, "[first, last], whole numbers", "frames, from 1, both inclusive; -1 is the last"
    )
    dt: Positive | None = key(None, "a number above zero", "time between two frames [s]")
    time_origin: Finite | None = key(None, "a finite number", "time of frame 1 [s]; 0")
    gap: Positive | None = key(None, "a number above zero", "gap of the shear cell [Å]; 2e6")
    phi_ranges: list[Pair] = key(
        [], "a list of [low, high]", "ranges of azimuth to take [deg]; all when empty"
    )
    bad_frames: list[Annotated[int, Field(ge=1)]] = key(
        [], "a list of whole numbers from 1", "frames that count for nothing"
    )
    min_lag: int = key(1, "a whole number from 1", "smallest lag that counts [frames]", ge=1)
    max_lag: int | None = key(
        None, "a whole number from 1", "largest lag that counts [frames]", ge=1
    )
    age_range: Pair | None = key(None, "[low, high]", "ages (t1 + t2)/2 that count [s]")
    sigma: Positive | Literal["mad"] | None = key(
        None,
        'a number above zero or "mad"',
        'standard deviation of c2; a stored one is used by itself, "mad" estimates it',
    )


class Model(Section):
    """What the data are described by."""

    mode: Mode = key(
        "laminar_flow",
        '"static_isotropic", "static", "static_anisotropic", "laminar_flow" or "two_component"',
        "static_isotropic: one curve for all angles; static: scaling by angle",
    )
    kernel: Literal["gap_averaged", "homodyne"] = key(
        "gap_averaged",
        '"gap_averaged" or "homodyne"',
        "shear kernel; homodyne reproduces homodyne 2.x",
    )
    integral: Literal["exact", "trapezoid"] = key(
        "exact", '"exact" or "trapezoid"', "time integral of the rates"
    )


class Rate(Section):
    """A rate of the model as a function of time."""

    kind: RateKind = key(
        "power_law",
        '"power_law", "spline", "signed_spline", "piecewise_constant", "piecewise_linear" or '
        '"exponential"',
        "spline: positive, of any smooth shape; exponential: ageing",
    )
    knots: int = key(
        12, "a whole number from 2", "values in time that a spline or piecewise rate has", ge=2
    )
    spacing: Literal["uniform", "log"] = key(
        "uniform", '"uniform" or "log"', "knots at equal distances, or at equal ratios of time"
    )
    times: Annotated[list[Finite], Field(min_length=1)] | None = key(
        None, "a list of times", "the knots themselves, or where a rate in steps jumps [s]"
    )
    smoothness: Positive | None = key(
        None,
        "a number above zero",
        "penalty on second differences between knots, as the size expected of them: in ln J of "
        "positive rates, else in the unit of the rate",
    )

    @model_validator(mode="after")
    def _check(self) -> "Rate":
        at_knots = self.kind not in ("power_law", "exponential")
        if not at_knots and (self.times is not None or self.smoothness is not None):
            raise ValueError(
                f'times and smoothness belong to splines and piecewise rates, not to "{self.kind}"'
            )
        if self.times is not None and sorted(set(self.times)) != self.times:
            raise ValueError(f"times = {self.times} must increase")
        return self


class Parameter(Section):
    """One parameter of the model; every key has a default by name."""

    start: Finite | None = key(None, "a finite number", "start value")
    bounds: Bounds | None = key(None, "[lower, upper]", "bounds; equal ones fix it")
    free: bool = key(True, "true or false", "false keeps it at its start")
    scale: Positive | None = key(None, "a number above zero", "natural step")
    tie: str | None = key(None, "a parameter", "keeps it at factor times that parameter")
    factor: Finite | None = key(None, "a finite number", "factor of the tie; 1")

    @model_validator(mode="after")
    def _check(self) -> "Parameter":
        _ordered("bounds", self.bounds, equal=True)
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


class Scaling(Section):
    """Contrast and offset of each angle."""

    mode: ScalingMode | None = key(
        None,
        '"auto", "individual", "averaged", "fixed", "fixed_averaged", "fourier", "auto_threshold"',
        "auto; averaged for static_isotropic",
    )
    order: int = key(2, "a whole number from 0", "order of the Fourier series", ge=0)
    contrast_bounds: Pair | None = key(None, "[lower, upper]", "bounds of every contrast")
    offset_bounds: Pair | None = key(None, "[lower, upper]", "bounds of every offset")
    contrast: PerAngle | None = key(
        None, "a number, or one for each angle", "of the fixed modes; from the data by quantiles"
    )
    offset: PerAngle | None = key(
        None, "a number, or one for each angle", "of the fixed modes; from the data by quantiles"
    )

    @model_validator(mode="after")
    def _check(self) -> "Scaling":
        _ordered("contrast_bounds", self.contrast_bounds)
        _ordered("offset_bounds", self.offset_bounds)
        given = self.contrast is not None or self.offset is not None
        if given and self.mode not in ("fixed", "fixed_averaged"):
            raise ValueError(
                'contrast and offset are values of the modes "fixed" and "fixed_averaged"; '
                "set scaling.mode to one of them, or leave the values out"
            )
        return self


class Solver(Section):
    """How the minimum is found, and which error bar is quoted."""

    method: Literal["levenberg_marquardt", "dogleg", "gauss_newton", "hybrid"] = key(
        "levenberg_marquardt",
        '"levenberg_marquardt", "dogleg", "gauss_newton" or "hybrid"',
        "step inside the trust region; hybrid: the optimiser of [hybrid], from afar",
    )
    loss: Loss = key(
        "linear", '"linear", "soft_l1", "huber", "cauchy" or "arctan"', "of the residuals"
    )
    loss_scale: Positive | None = key(
        None,
        "a number above zero",
        "residual where a robust loss bends, in sigma (in c2 without sigma); 1 sigma",
    )
    cost_tol: Positive | None = key(None, "a number above zero", "relative fall of the cost")
    step_tol: Positive | None = key(None, "a number above zero", "relative step")
    gradient_tol: Positive | None = key(
        None, "a number above zero", "largest cosine of residuals and derivatives"
    )
    max_evaluations: int | None = key(
        None, "a whole number from 1", "evaluations of the normal equations", ge=1
    )
    metric: Literal["natural", "jacobian"] = key(
        "natural", '"natural" or "jacobian"', "unit of a step"
    )
    coordinates: Literal["slope", "signed_slope", "reference_time", "physical"] = key(
        "slope",
        '"slope", "signed_slope", "reference_time" or "physical"',
        "variables that the steps are taken in",
    )
    recovery: int = key(3, "a whole number from 0", "attempts to rescue a failed fit", ge=0)
    checkpoint: bool | Literal["auto"] = key(
        "auto",
        'true, false or "auto"',
        "states to go on from with --resume; auto: of fits that take long or are interrupted",
    )
    checkpoint_every: int = key(
        1, "a whole number from 1", "evaluations between two checkpoints", ge=1
    )
    angle_weights: (
        Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field()] | None
    ) = key(None, "a list of numbers above zero", "weight of the squared residuals of each angle")
    errors: Literal["speckle", "classical", "dyadic"] = key(
        "speckle", '"speckle", "classical" or "dyadic"', "the error bar that is quoted"
    )
    profile: list[str] = key(
        [], "a list of names", "parameters that get a profile-likelihood interval"
    )
    profile_level: Annotated[float, Field(gt=0, lt=1)] = key(
        0.6827, "a number between 0 and 1", "probability inside those intervals"
    )


class Output(Section):
    """What is written, and where."""

    directory: str | None = key(
        None, "a path", "results folder, relative to this file; NAME_results", min_length=1
    )
    plots: bool = key(True, "true or false", "whether to write plots")
    fitted_data: bool | None = key(
        None,
        "true or false",
        "whether to write fit/fitted_data; if maps are in memory",
    )
    degeneracy: bool | Literal["auto"] = key(
        "auto",
        'true, false or "auto"',
        "what the data leave open, with profiles and advice; auto: of degenerate fits",
    )
    diagnostics: bool = key(
        False, "true or false", "sensitivities, gradients and scales of the parameters"
    )
    sequential: Literal["inverse_variance", "uniform", "by_points"] | None = key(
        None,
        '"inverse_variance", "uniform" or "by_points"',
        "fits each angle by itself as well, combined this way",
    )


class DataSet(Data):
    """One of several data sets that are fitted together."""

    label: Annotated[str, Field(pattern=r"^[^\[\]\"'\s]([^\[\]\"']*[^\[\]\"'\s])?$")] | None = key(
        None,
        "a text without brackets, quotes and outer spaces",
        "name in reports and of its parameters, as in D0[hot]; the name of the file, or 1, 2, …",
    )
    weight: Positive | None = key(
        None, "a number above zero", "of its squared residuals, given for all or for none; by noise"
    )
    factors: dict[str, Finite] = key(
        {}, "a table of numbers, none of them zero", "its own value is factor times the shared one"
    )
    model: Model | None = key(None, "a table of keys", "what differs from [model]")

    @model_validator(mode="after")
    def _check(self) -> "DataSet":
        for name, factor in self.factors.items():
            if factor == 0:
                raise ValueError(f"factors.{name} = 0 leaves nothing to fit; give another number")
        return self


class Joint(Section):
    """What several data sets share."""

    shared: list[str] | None = key(
        None, "a list of names", "parameters with one value for all; those that all models have"
    )
    separate: list[str] | None = key(
        None, "a list of names", "parameters with a value for each, all others being shared"
    )

    @model_validator(mode="after")
    def _check(self) -> "Joint":
        if self.shared is not None and self.separate is not None:
            raise ValueError("shared and separate say the same twice; leave one of them out")
        return self


class Common(WithGlobal):
    """What a configuration has beside its data."""

    model: Model = Model()
    rates: dict[str, Rate] = Field(default={}, description="one table a rate of the model")
    parameters: dict[str, Parameter] = Field(default={}, description="one table a parameter")
    scaling: Scaling = Scaling()
    solver: Solver = Solver()
    streaming: Streaming = Streaming()
    hybrid: Hybrid = Hybrid()
    defences: Defences | None = None
    bayes: Bayes | None = None
    output: Output = Output()


class Settings(Common):
    """A configuration with one data set."""

    data: Data


class SeveralQSettings(Common):
    """A configuration with one data set for each q of a file."""

    data: Data
    joint: Joint


class JointSettings(Common):
    """A configuration with several tables `[[data]]`."""

    data: list[DataSet] = key(
        ..., "a table [[data]] for each data set", "fitted together", min_length=1
    )
    joint: Joint = Joint()
