"""From maps and a model to a fit in one call."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..arguments import checked
from ..checkpoint import Checkpoints
from ..data import load_any, with_sigma
from ..errors import ModelError
from ..fitting import Fit, least_squares
from ..fitting.joint import Errors
from ..objective import AbstractLoss, AbstractPenalty, AnyData, two_time_objective
from ..optimize import AbstractPreparation, Recovery, TrustRegion
from ..parameters import box_of, parameter_map, shared_parameters, with_parameters
from ..parameters.leaves import Tie
from ..physics import AbstractCorrelation
from ..scaling import AbstractScaling, half_decays
from .auto import AbstractStrategy, Auto, global_least_squares

Model = AbstractCorrelation | type[AbstractCorrelation]
Path = str | os.PathLike


@checked(
    data=Path | AnyData | Mapping[str, AnyData] | Sequence[AnyData],
    model=Model | Mapping[str, Model],
    scaling=AbstractScaling | Mapping[str, AbstractScaling] | None,
)
def fit_maps(
    data: Any,
    model: Any,
    *,
    fixed: Sequence[str] = (),
    bounds: Mapping[str, Any] | None = None,
    ties: Mapping[str, Tie] | None = None,
    scaling: Any = None,
    sigma: float | None = None,
    loss: AbstractLoss | None = None,
    penalties: tuple[AbstractPenalty, ...] = (),
    shared: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    search: AbstractStrategy | bool = False,
    solver: TrustRegion | None = None,
    recovery: Recovery | None = None,
    warm_up: AbstractPreparation | None = None,
    errors: Errors = "all",
    checkpoints: Checkpoints | None = None,
    every: int = 1,
    resume: bool = False,
    callback: Callable[[Any], Any] | None = None,
    progress: bool = False,
) -> Fit:
    """Fit a model to two-time maps: the whole way from data to parameters with error bars.

    It is `parameter_map` or `shared_parameters`, `two_time_objective` and `least_squares` or
    `global_least_squares`, one after another, where there is more to set.

    **Arguments:**

    - `data`: from `load` or `from_dict`, or the path of a file. Several data sets, as a dictionary
        by label or a list, are fitted together.
    - `model`: at its start values, as `Static(PowerLawRate(1e4))`; or its class, `Static`, which
        begins where the maps decay. Of several data sets one for all, or a dictionary.
    - `fixed`: names of parameters kept at their start.
    - `bounds`: name → (lower, upper), in physical units; `ties`: name → function of all parameters.
    - `scaling`: contrast and offset by angle, by default `Individual`; of several data sets a
        dictionary of those that differ from that.
    - `sigma`: standard deviation of c2, in place of what the data say of it.
    - `loss`, `penalties`, `weights`: as in `two_time_objective`; `shared`: as in
        `shared_parameters`.
    - `search`: true, or a strategy such as `search.MultiStart()`, to look for other minima too.
    - `solver`, `recovery`, `warm_up`, `errors`, `callback`, `progress`: as in `least_squares`.
    - `checkpoints`, `every`, `resume`: as in `least_squares`, so that a fit which was stopped goes
        on: `fit_maps(…, checkpoints=Checkpoints(folder), resume=True)`. Of a search they are those
        of its first local fit; what it looks for then begins anew.

    **Returns:** a `Fit`: `print(fit)`, `fit.plot()`, `fit.to_dataframe()`.

    **Raises:** as these functions; `ModelError` for labels of models or scalings that are not those
    of the data, and for classical errors of a search, which goes by the tests that come with all.

    >>> import jax
    >>> import numpy as np
    >>> import xpcs_eqx as xe
    >>> truth, t = xe.Static(xe.PowerLawRate(1.5e4, -0.3, 0.0)), 0.2 * np.arange(20)
    >>> place = xe.Geometry(q=0.0054, phi=[0.0])
    >>> data = xe.simulate(truth, t, place, 0.2, noise=0.002, key=jax.random.key(0))
    >>> fit = xe.fit_maps(data, xe.Static, fixed=["D_offset"])
    >>> fit.quality.flag, abs(fit["alpha"].value + 0.3) < 4 * fit["alpha"].error
    ('good', True)
    """
    sets = _labelled(load_any(data) if isinstance(data, Path) else data)
    if sigma is not None:
        sets = {label: with_sigma(one, sigma) for label, one in sets.items()}
    models = _by_label("model", model, sets)
    begun = {k: _at_start(models[k], one, k, bounds or {}) for k, one in sets.items()}
    named = {"fixed": tuple(fixed), "bounds": bounds, "ties": ties}
    how: dict[str, Any] = {"loss": loss, "penalties": penalties}
    if list(sets) == [""]:
        if shared is not None:
            raise ModelError("shared is for several data sets, and there is one; leave it out")
        parameters = parameter_map(begun[""], sets[""].t, **named)
        objective: Any = two_time_objective(parameters, sets[""], scaling, weights=weights, **how)
    else:
        times, labels = [one.t for one in sets.values()], list(sets)
        parameters = shared_parameters(
            list(begun.values()), times, shared=shared, labels=labels, **named
        )
        each = _by_label("scaling", scaling, sets, False)
        scalings, several = list(each.values()), list(sets.values())
        objective = two_time_objective(parameters, several, scalings, weights=weights, **how)
    running: dict[str, Any] = {
        "solver": solver,
        "recovery": recovery,
        "warm_up": warm_up,
        "errors": errors,
        "checkpoints": checkpoints,
        "every": every,
        "resume": resume,
        "callback": callback,
        "progress": progress,
    }
    if search is False:
        return least_squares(objective, **running)
    strategy = Auto() if search is True else search
    return global_least_squares(objective, strategy=strategy, **running).fit


def _labelled(data: Any) -> dict[str, Any]:
    """Data sets by label; one alone has none."""
    if isinstance(data, Mapping):
        return dict(data)
    if isinstance(data, Sequence):
        return {str(k + 1): one for k, one in enumerate(data)}
    return {"": data}


def _by_label(what: str, given: Any, sets: Mapping[str, Any], every: bool = True) -> dict[str, Any]:
    """What is given for all data sets, or by label, as one for each."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(sets, given)
    missing = sets.keys() - given.keys() if every else ()
    if wrong := [*(given.keys() - sets.keys()), *missing]:
        raise ModelError(
            f"{what} is given for {', '.join(given)}, the data sets are "
            f"{', '.join(filter(None, sets)) or 'one without a label'}: {sorted(wrong)[0]!r} is "
            "in one of the two only"
        )
    return {label: given.get(label) for label in sets}


def _at_start(model: Any, data: Any, label: str, bounds: Mapping[str, Any]) -> AbstractCorrelation:
    """The model with its start values: those of a class follow from the data, inside the bounds."""
    if not isinstance(model, type):
        return model
    begun = model()
    found = begun.starts(half_decays(data), data.geometry)
    for name, value in found.items():
        box = bounds.get(f"{name}[{label}]", bounds.get(name))
        found[name] = float(np.clip([value], *box_of(box, (1,)))[0])
    return with_parameters(begun, found)
