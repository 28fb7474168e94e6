"""The result of a fit as a plain value."""

import dataclasses
import os
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit
from ..data import map_of
from ..errors import FitError, ModelError
from ..objective import MapTiles, StoredTiles, has_bins, on_one_device
from ..optimize import AbstractPreparationState, History, Status, Telemetry, WarmUpState
from ..physics import AbstractCorrelation, correlation_map, time_floor
from ..physics.rates import rates_in
from ..scaling import IndexMap
from ..showing import Table, as_block, counted, counts_frames, figures_of, labelled, with_error
from ..uncertainty import Misfit, Signal, Uncertainty
from .joint import Sharing
from .scaling_check import ScalingCheck
from .solution import OuterHistory, RecoveryAction, Run


class ParameterRow(NamedTuple):
    """One line of the parameter table.

    Errors are NaN for what is fixed or on a bound; those of a tied parameter follow from what it is
    tied to.
    """

    name: str
    value: float
    error: float
    error_classical: float
    error_speckle: float
    error_dyadic: float
    unit: str
    lower: float
    upper: float
    start: float
    role: str
    at_bound: bool

    @property
    def varies(self) -> bool:
        """Whether it is a parameter of the model that was fitted."""
        return self.role in ("free", "shared", "separate")


class Quality(NamedTuple):
    """`flag` is good, marginal or poor; `findings` say why, in sentences.

    `doubtful` tells that a number may be wrong: always of a poor fit, and of a marginal one but for
    reasons that make errors large and leave them right.
    """

    flag: str
    findings: tuple[str, ...]
    doubtful: bool = False

    def doubted(self, reasons: tuple[str, ...]) -> "Quality":
        """With further findings, for which a fit is marginal at best; the same without any.

        >>> from xpcs_eqx.fitting import Quality
        >>> Quality("good", ()).doubted(("there is another minimum",)).flag
        'marginal'
        """
        if not reasons:
            return self
        flag = "marginal" if self.flag == "good" else self.flag
        return Quality(flag, (*self.findings, *reasons), True)


class FittedModel(eqx.Module):
    """A two-time model at the optimum with its scaling, which together make the fitted surface.

    - `contrast`, `offset`: scaling by angle.
    - `index`: layout (scaling coefficients, free parameters) of the flat vector of the data set.
    - `scaling_check`: whether the angles bear out a scaling that is not one pair for each.
    - `misfit`: tests of what the fit has left; None where the maps cannot tell their noise.
    - `signal`: whether the maps have a contrast and a decay; None for points that are no maps.
    - `scatter`: of bins of age and lag, standard deviation of the residuals over the noise that
        bins of neighbouring ages show; NaN else, and where there are too few.
    """

    model: AbstractCorrelation
    contrast: Float[np.ndarray, "angle"]
    offset: Float[np.ndarray, "angle"]
    index: IndexMap
    scaling_check: ScalingCheck | None = None
    misfit: Misfit | None = None
    signal: Signal | None = eqx.field(static=True, default=None)
    scatter: float = eqx.field(static=True, default=float("nan"))


_T = TypeVar("_T")


class Parts(dict[str, _T]):
    """What belongs to each data set, by label in their order."""

    def __missing__(self, label: str) -> _T:
        raise KeyError(f"no data set {label!r}; there are {', '.join(self) or 'none'}")


class Fit(eqx.Module):
    """Parameters, error bars, and how they were found: of one data set, of several, or of a curve.

    - `values`: the fitted numbers, called `names`: scaling coefficients, of every data set in turn,
        then free parameters; `uncertainty` is laid out like them.
    - `rows`: every parameter of the model and every scaling coefficient, ready for a table;
        `role` is free, shared, separate, fixed, tied or scaling.
    - `parts`: each data set as a `Fit` of its own with its own names, the error bars being those of
        all data together: surfaces, residuals, rates and plots come from it. A fit of one data set
        is its only part; a curve has none.
    - `fitted`: model and scaling of the data set, where there is one only; its fields can be asked
        of the fit itself: `model`, `contrast`, `offset`, `index`, ….
    - `joint_hessian`: JᵀWJ of `values`, penalties included; of a curve it is not kept.
    - `sharing`: whether several data sets agree on what they share.
    - `cost`: the minimised cost, penalties and robust loss included; `chi2`: Σ w r², each
        unordered pair once; `n_pairs`, `degrees_of_freedom` belong to it.
    - `reduced_chi2`: chi2 per degree of freedom when sigma is known, else NaN;
        `residual_sd`: standard deviation of the weighted residuals.
    - `remarks`: rates that are negative and must not be, and exact degeneracies; `conditions`: on
        what the fit or its error bars depend; `doubts`: what was found by looking elsewhere;
        `looked`: where other minima were looked for, empty for nowhere.
    - `label`: of the data set; `together`: whether it was fitted together with others.
    - `run`: how the solver went; its fields can be asked of the fit itself: `status`, `message`,
        `evaluations`, `history`, ….
    """

    # Which kind it is, and so what can be asked of it, is known to whoever made the fit.
    objective: Any
    values: Float[np.ndarray, "entry"]
    uncertainty: Uncertainty
    cost: Float[Array | np.ndarray, ""]
    chi2: Float[np.ndarray, ""]
    run: Run
    names: tuple[str, ...] = eqx.field(static=True)
    rows: tuple[ParameterRow, ...] = eqx.field(static=True)
    n_pairs: int = eqx.field(static=True)
    degrees_of_freedom: int = eqx.field(static=True)
    reduced_chi2: float = eqx.field(static=True)
    residual_sd: float = eqx.field(static=True)
    quality: Quality = eqx.field(static=True)
    fitted: FittedModel | None = None
    data_sets: tuple["Fit", ...] = ()
    joint_hessian: Float[np.ndarray, "entry entry"] | None = None
    sharing: Sharing | None = eqx.field(static=True, default=None)
    remarks: Any = eqx.field(static=True, default=((), ()))
    conditions: tuple[str, ...] = eqx.field(static=True, default=())
    doubts: tuple[str, ...] = eqx.field(static=True, default=())
    looked: str = eqx.field(static=True, default="")
    label: str = eqx.field(static=True, default="1")
    together: bool = eqx.field(static=True, default=False)

    @property
    def parts(self) -> "Parts[Fit]":
        """The data sets by label, in their order."""
        alone = () if self.fitted is None else (self,)
        return Parts({one.label: one for one in self.data_sets or alone})

    @property
    def counts_frames(self) -> bool:
        """Whether its times are numbers of frames, as no frame time is known."""
        return counts_frames(row.unit for row in self.rows)

    @property
    def x(self) -> Float[np.ndarray, "variable"]:
        """Physical variables of the objective, in its order."""
        return np.asarray(self.values)[self._order()]

    @property
    def pcov(self) -> Float[np.ndarray, "variable variable"]:
        """Quoted covariance of `x`, zero on a bound, infinite for what the data leave open.

        NaN where it is not formed, for thousands of parameters (`optimize.covariance_columns`).
        """
        order = self._order()
        return np.asarray(self.uncertainty.covariance)[np.ix_(order, order)]

    @property
    def perr(self) -> Float[np.ndarray, "variable"]:
        """Standard errors of `x`."""
        return self.uncertainty.errors()[self._order()]

    @property
    def fun(self) -> float:
        """The cost, as SciPy calls it."""
        return float(self.cost)

    @property
    def covariance(self) -> Float[np.ndarray, "entry entry"]:
        """Quoted covariance of `values`, in the order of `names`; `pcov` is that of `x`."""
        return np.asarray(self.uncertainty.covariance)

    @property
    def correlation(self) -> Float[np.ndarray, "entry entry"]:
        """Quoted correlations of `values`, in the order of `names`; zero for what has no error."""
        return self.uncertainty.correlation()

    def _order(self) -> list[int]:
        wanted = self.objective.names
        if wanted == self.names:
            return list(range(len(wanted)))
        places = {name: i for i, name in enumerate(self.names)}
        return [places[name] for name in wanted]

    @property
    def status(self) -> Status:
        """How the solver ended."""
        return self.run.status

    @property
    def success(self) -> bool:
        """Whether the solver converged."""
        return self.run.status.converged

    @property
    def message(self) -> str:
        """How the solver ended, in a sentence."""
        return self.run.message

    @property
    def history(self) -> History:
        """Every evaluation of the trust region."""
        return self.run.history

    @property
    def evaluations(self) -> int:
        """Evaluations of all attempts, and of what came before them."""
        return self.run.evaluations

    @property
    def iterations(self) -> int:
        """Accepted steps of all attempts."""
        return self.run.iterations

    @property
    def recovery(self) -> tuple[RecoveryAction, ...]:
        """What was done about failures, in order."""
        return self.run.recovery

    @property
    def timings(self) -> tuple[tuple[str, float], ...]:
        """Seconds by phase."""
        return self.run.timings

    @property
    def solver_name(self) -> str:
        """The solver in words."""
        return self.run.solver_name

    @property
    def prepared(self) -> dict[str, AbstractPreparationState]:
        """Last states of what improved the start, by phase."""
        return {state.phase: state for state in self.run.prepared}

    @property
    def warm_up(self) -> WarmUpState | None:
        """How the warm-up ended, where there was one."""
        return next((one for one in self.run.prepared if isinstance(one, WarmUpState)), None)

    @property
    def telemetry(self) -> Telemetry:
        """How often each defence was asked and fired."""
        return self.run.telemetry

    @property
    def outer(self) -> OuterHistory | None:
        """Outer iterations of a hierarchical fit."""
        return self.run.outer

    def _one(self) -> FittedModel:
        if self.fitted is not None:
            return self.fitted
        if not self.data_sets:
            raise ModelError("the fit of a curve has no two-time model, contrast and offset")
        labels = ", ".join(one.label for one in self.data_sets)
        raise ModelError(
            f"this fit is of several data sets ({labels}), each with a model, contrast and offset "
            f"of its own: ask one of them, fit.parts[{self.data_sets[0].label!r}]"
        )

    @property
    def model(self) -> AbstractCorrelation:
        """The model at the optimum."""
        return self._one().model

    @property
    def misfit(self) -> Misfit | None:
        """Tests of what the fit has left; None where the maps cannot tell their noise."""
        return self._one().misfit

    @property
    def signal(self) -> Signal | None:
        """Whether there is a contrast and a decay; None for points that are no maps."""
        return self._one().signal

    @property
    def contrast(self) -> Float[np.ndarray, "angle"]:
        """Contrast by angle."""
        return self._one().contrast

    @property
    def offset(self) -> Float[np.ndarray, "angle"]:
        """Offset by angle."""
        return self._one().offset

    @property
    def index(self) -> IndexMap:
        """Layout of `values`."""
        return self._one().index

    @property
    def scaling_check(self) -> ScalingCheck | None:
        """Whether the angles bear out a scaling that is not one pair for each."""
        return self._one().scaling_check

    def _headline(self) -> str:
        """What was fitted, the verdict, and how the solver ended."""
        if self.fitted is not None:
            entries = "bins" if has_bins(self.objective.term.tiles) else "pairs"
            what = f"{type(self.fitted.model).__name__} to {self.n_pairs} {entries}"
        elif self.data_sets:
            what = f"{counted(len(self.data_sets), 'data set')} to {self.n_pairs} pairs"
        else:
            what = f"a curve to {self.n_pairs} points"
        return f"Fit of {what}: {self.quality.flag}, {self.message}"

    def _elsewhere(self) -> str:
        """What is known of other minima, in words."""
        return f"other minima: {self.looked or 'not looked for, a fit from one start'}"

    def __repr__(self) -> str:
        """The verdict and one line for each parameter."""
        shown = [row for row in self.rows if row.role != "scaling" or self.fitted is not None]
        lines = [self._headline()]
        for row in shown:
            held = f" ({row.role})" if row.role in ("fixed", "tied") else ""
            said = f"{row.value:.6g}" if held else with_error(row.value, row.error)
            if not held and "±" not in said:
                said += f" ± {row.error}"
            lines.append(f"  {row.name} = {said} {row.unit}".rstrip() + held)
        if self.parts:
            lines.append(f"  {self._elsewhere()}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Verdict, findings and the table of parameters, as notebooks show it."""
        rows = self.summary()
        said = list(self.quality.findings)
        if self.parts:
            said.append(self._elsewhere())
        main = Table({name: row for name, row in rows.items() if row["role"] != "scaling"})
        scaling = Table({name: row for name, row in rows.items() if row["role"] == "scaling"})
        more = f"<details><summary>contrast and offset</summary>{scaling._repr_html_()}</details>"
        good = not self.quality.doubtful
        return as_block(self._headline(), said, main, good, more if len(scaling) else "")

    def summary(self) -> Table:
        """Value, error, unit, role, bounds and start of every parameter and scaling coefficient.

        It prints as a table; errors are the quoted ones, NaN for what is fixed or on a bound.
        """
        columns = ("value", "error", "unit", "role", "lower", "upper", "start")
        return Table({row.name: {c: getattr(row, c) for c in columns} for row in self.rows})

    def to_dataframe(self) -> Any:
        """`summary` as a pandas DataFrame, a row for each parameter.

        **Raises:** `ModelError` with what to install when pandas is missing.
        """
        return self.summary().to_dataframe()

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `summary` as CSV, a line for each parameter.

        **Raises:** `DataError` when the folder does not exist.
        """
        self.summary().to_csv(path)

    def to_xarray(self, maps: bool = False) -> Any:
        """An xarray Dataset: values, errors and covariance; contrast and offset by angle.

        **Arguments:**

        - `maps`: whether fitted maps and residuals, over angle and the two times [s], are in it.

        **Raises:** `ModelError` with what to install when xarray is missing, and as `surface` for
        the maps of several data sets, each of which has its own: `fit.parts[label].to_xarray()`.
        """
        entry, other = ("parameter",), ("parameter", "other")
        arrays: dict[str, Any] = {
            "value": (entry, np.asarray(self.values)),
            "error": (entry, self.uncertainty.errors()),
            "covariance": (other, self.covariance),
            "correlation": (other, self.correlation),
        }
        names = list(self.names)
        coordinates: dict[str, Any] = {"parameter": names, "other": names}
        attributes: dict[str, Any] = {
            "verdict": self.quality.flag,
            "findings": "; ".join(self.quality.findings),
        }
        if self.fitted is not None:
            place = self.objective.term.geometry
            arrays["contrast"] = ("angle", np.asarray(self.contrast))
            arrays["offset"] = ("angle", np.asarray(self.offset))
            coordinates["phi"] = ("angle", np.asarray(place.phi))
            attributes["q"] = float(place.q)
        if maps:
            arrays["fitted"] = (("angle", "t1", "t2"), self.surface())
            arrays["residual"] = (("angle", "t1", "t2"), self.residuals())
            coordinates |= dict.fromkeys(("t1", "t2"), np.asarray(self.objective.term.t))
        return labelled(arrays, coordinates, attributes)

    def plot(self, *names: str) -> Any:
        """The figures of the fit: maps with residuals, c2 against lag, rates, and so on.

        They are drawn when they are looked at: a notebook shows them, `fit.plot().save(folder)`
        writes files, `fit.plot()["maps"]` is a figure of matplotlib, `show()` opens windows.

        **Arguments:**

        - `names`: of the figures that are wanted; by default all.

        **Raises:** `ModelError` for a name that is none, and with what to install when matplotlib
        is missing.
        """
        return figures_of(self, names)

    def __getitem__(self, name: str) -> ParameterRow:
        """The table row of a parameter or scaling coefficient.

        Of several data sets a parameter is found by its public name, `D0` where it is shared, or
        for any of them as `D0[label]`.

        **Raises:** `KeyError` listing the names there are.
        """
        for row in self.rows:
            if row.name == name:
                return row
        for part in self.data_sets:
            for row in part.rows:
                if f"{row.name}[{part.label}]" == name:
                    return row._replace(name=name)
        raise KeyError(f"no parameter {name!r}; there are {', '.join(r.name for r in self.rows)}")

    def doubted(self, reasons: tuple[str, ...]) -> "Fit":
        """The fit with its verdict lowered for `reasons`; the same without any."""
        doubts = (*self.doubts, *reasons)
        return dataclasses.replace(self, doubts=doubts, quality=self.quality.doubted(reasons))

    def surface(self, angle: int | None = None) -> Float[np.ndarray, "*angle frame frame"]:
        """The fitted c2 over all frames and angles, or of one angle, as the solver saw it.

        **Raises:** `ModelError` for several data sets, each of which has its own, and for curves.
        """
        scaling = np.stack([self.contrast, self.offset], axis=1)
        term = self.objective.term
        if angle is None:
            return np.array(_surface(self.model, term.t, term.geometry, scaling))
        place, own = term.geometry.angle(angle), scaling[angle][None]
        return np.array(_surface(self.model, term.t, place, own))[0]

    def residuals(self, angle: int | None = None) -> Float[np.ndarray, "*angle frame frame"]:
        """c2 minus the fitted surface, NaN on the diagonal and where no pair counts.

        Of all angles, or of one, which is all that data in a file allow.

        **Raises:** `FitError` for pooled points and chunks, which form no maps, and for data in a
        file without an angle; `ModelError` as `surface`.
        """
        self._one()
        tiles = on_one_device(self.objective.term.tiles)
        if isinstance(tiles, StoredTiles):
            if angle is None:
                raise FitError(
                    "the maps stay in their file and are not all formed at once; ask for the "
                    "residuals of one angle after the other: residuals(angle)"
                )
            angle = range(tiles.n_angles)[angle]
            c2, keep = map_of(tiles.source, tiles.rule, angle)
            return np.where(keep, c2 - self.surface(angle), np.nan)
        if not isinstance(tiles, MapTiles):
            raise FitError(
                "pooled points form no maps; compare data and surface point by point, of bins of "
                "age and lag with report.fitted_bins"
            )
        which = slice(None) if angle is None else angle
        difference = np.asarray(tiles.c2[which], dtype=float) - self.surface(angle)
        n = difference.shape[-1]
        difference[..., np.arange(n), np.arange(n)] = np.nan
        if tiles.root_weights is not None:
            weights = np.triu(np.asarray(tiles.root_weights[which]), 1)
            difference[weights + np.swapaxes(weights, -1, -2) == 0] = np.nan
        return difference

    def rate(self, field: str) -> tuple[Float[np.ndarray, "frame"], Float[np.ndarray, "frame"]]:
        """A rate (`"transport"`, `"shear"`) at the frame times and its standard error.

        Times below half a frame spacing are taken there. The error comes from the quoted
        covariance of the free parameters.

        **Raises:** `ModelError` for a name that is no rate of the model.
        """
        if field not in (known := rates_in(self.model)):
            raise ModelError(
                f"{type(self.model).__name__} has no rate {field!r}; it has "
                f"{', '.join(known) or 'none'}"
            )
        x = np.asarray(self.values)[self.index.physical]
        term = self.objective.term
        values, slopes = _rate_and_slopes(term.parameters, field, term.t, x)
        return np.asarray(values), self.uncertainty.errors_of(np.asarray(slopes))


def hessian_of_maps(fit: Fit) -> Float[np.ndarray, "entry entry"]:
    """`joint_hessian` of a fit of data sets. **Raises:** `ModelError` for the fit of a curve."""
    if fit.joint_hessian is None:
        raise ModelError(
            "this is the fit of a curve, of which the normal matrix is not kept: its "
            "`uncertainty` has the condition number, the correlations and the weak directions"
        )
    return fit.joint_hessian


@quick_jit
def _surface(model, t, geometry, scaling):
    correlation = correlation_map(model, t, geometry)
    return scaling[:, 1, None, None] + scaling[:, 0, None, None] * correlation


@quick_jit
def _rate_and_slopes(parameters, field, t, x):
    times = jnp.maximum(t, time_floor(t))

    def curve(x):
        return getattr(parameters.build(x), field)(times)

    return curve(x), jax.jacfwd(curve)(x)
