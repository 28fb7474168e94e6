"""A configuration of homodyne 2.x or xpcsjax in the words of this program: `xpcs-eqx import`."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config.effects import refuse_without_effect
from ..config.read import check_settings
from ..config.source import Source
from ..config.tables.model import MODES
from ..errors import ConfigError, how_to_install
from ..physics.leaves import parameter_leaves

# Of an unknown measurement their programs take this standard deviation of c2, and so bend losses.
SIGMA = 0.01
_MODES = {"static": "static", "heterodyne": "two_component", "two-component": "two_component"}
_NAMES = {
    "gamma_dot_0": "gamma_dot_t0",
    "gamma_dot_offset": "gamma_dot_t_offset",
    "phi_0": "phi0",
    "phi0_het": "phi0",
}
_SCALINGS = ("contrast", "offset")
# Why nothing is made of a key, by the beginning of its name; of several the longest holds.
_LEFT = {
    "metadata": "says what the file is, nothing of the fit",
    "analysis_settings": "describes the model, which analysis_mode chooses",
    "analyzer_parameters.frame_step": "all frames are taken; thin them out in the file",
    "analyzer_parameters.time_unit": "times are seconds",
    "experimental_data.phi_angles": "azimuths are read from the data; data.phi gives missing ones",
    "experimental_data.cache": "maps are read as they are, nothing is cached",
    "experimental_data.use_caching": "maps are read as they are, nothing is cached",
    "experimental_data": "the layout is recognised by itself; data.layout names it",
    "phi_filtering.fallback_to_all_angles": "ranges without an angle are an error here",
    "phi_filtering": "ranges are taken as they are; judge the angles by `xpcs-eqx show`",
    "initial_parameters.units": "describes the parameters",
    "initial_parameters.per_angle_scaling": "contrast and offset are found exactly, without starts",
    "parameter_space.model": "repeats analysis_mode",
    "parameter_space.priors": "priors stand in parameter_space.bounds, or in [bayes.priors]",
    "optimization.nlsq.workflow": "in memory or not is decided by size: [streaming]",
    "optimization.nlsq.goal": "there is one goal, the minimum: [solver]",
    "optimization.nlsq.trust_region_scale": "the trust region finds its own size",
    "optimization.nlsq.x_scale": "steps have natural scales; parameters.NAME.scale gives another",
    "optimization.nlsq.verbose": "xpcs-eqx fit -v prints every evaluation",
    "optimization.nlsq.progress": "xpcs-eqx fit -v prints every evaluation",
    "optimization.nlsq.diagnostics": "output.diagnostics = true writes them",
    "optimization.nlsq.hybrid_streaming": "used there for large data only; here maps of any size "
    'go through the trust region, and solver.method = "hybrid" asks for the other',
    "optimization.nlsq.anti_degeneracy.hierarchical": "contrast and offset are solved for "
    "exactly at every step, so that nothing goes in turn; [defences.hierarchical] does",
    "optimization.nlsq.anti_degeneracy.gradient_monitoring": "scaling that is solved for has "
    "no gradient to compare; [defences.monitor] watches one that is fitted",
    "optimization.nlsq.anti_degeneracy.constant_scaling_threshold": "it is 3 here; scaling.mode = "
    '"averaged" or "individual" chooses for other numbers of angles',
    "optimization.nlsq.anti_degeneracy": "a layer that is off, or that changes what is minimised, "
    "which would be no likelihood for a posterior, or a number that the exact solution of contrast "
    "and offset does not need",
    "optimization.nlsq.multi_start": "no search over starts is asked for, or it has no such number",
    "optimization.nlsq.cmaes": "no CMA-ES is asked for, or it has no such number here",
    "optimization.nlsq.quality_validation": "every fit is judged by [verdict]",
    "optimization.streaming": "checkpoints are written by themselves: solver.checkpoint",
    "optimization.stratification": "sums are exact in any order, so nothing is stratified",
    "optimization.sequential": "angles one by one are an analysis here: output.sequential",
    "optimization.recovery": "what is done about a failure is decided by its cause",
    "optimization.mcmc": "of a posterior, which optimization.method does not ask for, or a number "
    "that is found by itself",
    "optimization.cmc": "of a posterior, which optimization.method does not ask for, or a number "
    "that is found by itself",
    "optimization.angle_filtering": "phi_filtering chooses the angles",
    "noise_estimation": "the noise is that of the residuals, or data.sigma",
    "performance": "memory and cores are used as they are there: [streaming], XPCS_EQX_THREADS",
    "logging": "xpcs-eqx fit -v or --quiet",
    "quality_control": "data are checked when they are read, fits by [verdict]",
    "plotting": "plots are what they are; output.plots = false leaves them out",
    "output": "results are one folder with JSON, NPZ, text, page and plots",
    "validation": "configuration and data are always checked",
}


# Of lists of tables, what is made something of; of a posterior priors as well.
_ROWS = {
    "parameter_space.bounds": {"name", "min", "max"},
    "phi_filtering.target_ranges": {"min_angle", "max_angle"},
}
_PRIORS = {"prior_mu", "prior_sigma"}
_IN_ROWS = "describes the row, or is of a posterior, which optimization.method does not ask for"


def _flat(tree: Any, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """Values by dotted key; an empty table is one."""
    if not isinstance(tree, Mapping) or (before and not tree):
        return {".".join(before): tree}
    return {k: v for name, one in tree.items() for k, v in _flat(one, (*before, str(name))).items()}


def _number(key: str, value: Any) -> float:
    """A number, also one that YAML takes for a text, as 1e-8.

    **Raises:** `ConfigError` when it is none.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise ConfigError(f"{key} is {value!r}; a number is needed there")
    return found


@dataclass
class Imported:
    """What became of a configuration.

    - `given`: its values by dotted key.
    - `out`: the tables that were made of it.
    - `taken`: keys that something was made of; `left`: why nothing was of the others.
    """

    given: dict[str, Any]
    out: dict[str, Any] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    def value(self, key: str, default: Any = None) -> Any:
        """A value, which counts as taken."""
        if key in self.given:
            self.taken.add(key)
        found = self.given.get(key)
        return default if found is None else found

    def number(self, key: str) -> float | None:
        """A number, which counts as taken, or None where there is none."""
        found = self.value(key)
        return None if found is None else _number(key, found)

    def rows(self, key: str, of: type = object) -> list[Any]:
        """A list of what is `of` a type, which counts as taken, empty where there is none.

        **Raises:** `ConfigError` when it is no such list.
        """
        found = self.value(key) or []
        if not isinstance(found, list) or not all(isinstance(one, of) for one in found):
            each = " of tables" if of is Mapping else ""
            raise ConfigError(f"{key} is {found!r}; a list{each} is needed there")
        return found

    def put(self, key: str, value: Any) -> None:
        """Set a dotted key, unless there is no value for it."""
        if value is None:
            return
        *tables, last = key.split(".")
        node = self.out
        for name in tables:
            node = node.setdefault(name, {})
        node[last] = value

    def move(self, key: str, to: str, change: Callable[[float], Any] = float) -> None:
        """Set a key to the number of another one."""
        found = self.number(key)
        self.put(to, None if found is None else change(found))

    @property
    def left(self) -> dict[str, str]:
        """Keys that nothing was made of, and why."""
        out = {}
        for key in self.given:
            if key not in self.taken:
                known = [one for one in _LEFT if key.startswith(one)]
                out[key] = _LEFT[max(known, key=len)] if known else "is no key of their templates"
        for key, used in _ROWS.items():
            used = used | (_PRIORS if "bayes" in self.out else set())
            rows = self.given.get(key) or []
            if more := sorted({name for row in rows for name in row} - used):
                out[f"{key}: {', '.join(more)}"] = _IN_ROWS
        return out


def _mode(made: Imported) -> str:
    asked = str(made.value("analysis_mode", ""))
    mode = _MODES.get(asked, asked)
    if mode not in MODES.meant:
        raise ConfigError(
            f"analysis_mode is {asked!r}; static, static_isotropic, static_anisotropic, "
            "laminar_flow and two_component are known"
        )
    made.put("model.mode", mode)
    # Those of their objective.
    made.put("model.integral", "trapezoid")
    if mode == "laminar_flow":
        made.put("model.kernel", "homodyne")
    return mode


def _data(made: Imported) -> None:
    path = made.value("experimental_data.file_path")
    folder = made.value("experimental_data.data_folder_path", "")
    name = made.value("experimental_data.data_file_name", "")
    made.put("data.path", str(path or os.path.join(str(folder), str(name))))
    dt, first = (made.number(f"analyzer_parameters.{one}") for one in ("dt", "start_frame"))
    last = made.number("analyzer_parameters.end_frame")
    made.put("data.dt", dt)
    first, last = int(first or 1), int(last or -1)
    # What they count from 0 counts from 1 there as well.
    first = max(first, 1)
    made.put("data.frames", [first, last])
    if dt is not None:
        # Their times begin with the frames that are taken.
        made.put("data.time_origin", 0.0 - (first - 1) * dt)
    made.move("analyzer_parameters.scattering.wavevector_q", "data.q")
    made.move("analyzer_parameters.geometry.stator_rotor_gap", "data.gap")
    ranges = made.rows("phi_filtering.target_ranges", Mapping)
    if made.value("phi_filtering.enabled", False) and ranges:
        pairs = [[_number("phi_filtering", r.get(end)) for end in _ENDS] for r in ranges]
        made.put("data.phi_ranges", pairs)


_ENDS = ("min_angle", "max_angle")


def _parameters(made: Imported, mode: str, sampled: bool) -> None:
    known = {leaf.name: leaf.info for leaf in parameter_leaves(MODES[mode]())}
    bounds: dict[str, Mapping[str, Any]] = {}
    for row in made.rows("parameter_space.bounds", Mapping):
        bounds[_NAMES.get(str(row.get("name")), str(row.get("name")))] = row
    names = [_NAMES.get(str(n), str(n)) for n in made.rows("initial_parameters.parameter_names")]
    values = made.rows("initial_parameters.values")
    if values and len(values) != len(names):
        raise ConfigError(
            f"initial_parameters has {len(names)} names and {len(values)} values; give one each"
        )
    starts = dict(zip(names, values, strict=True)) if values else {}
    renamed = {_NAMES.get(k, k): v for k, v in _table(made, "initial_parameters.fixed_parameters")}
    tied = {_NAMES.get(k, k): v for k, v in _table(made, "initial_parameters.tied_parameters")}
    active = made.rows("initial_parameters.active_parameters")
    # As there, where all that have no name are left out of the fit.
    active = {_NAMES.get(str(n), str(n)) for n in active or names or known}
    if strange := sorted({*names, *renamed, *tied, *bounds} - known.keys() - set(_SCALINGS)):
        raise ConfigError(f"{', '.join(strange)}: no parameter of mode {mode}")
    for name, info in known.items():
        where = f"parameters.{name}"
        if name in tied:
            parent = str(tied[name])
            made.put(f"{where}.tie", _NAMES.get(parent, parent))
            continue
        row = bounds.get(name, {})
        ends = [_number(name, row.get(k, d)) for k, d in (("min", info.lower), ("max", info.upper))]
        start = renamed.get(name, starts.get(name))
        if start is None and not ends[0] <= info.start <= ends[1]:
            # Without values their programs begin in the middle of the bounds.
            start = 0.5 * (ends[0] + ends[1])
        made.put(f"{where}.start", None if start is None else _number(name, start))
        made.put(f"{where}.bounds", ends)
        if name in renamed or name not in active:
            made.put(f"{where}.free", False)
            made.out["parameters"][name].pop("bounds")
        elif sampled and row.get("prior_mu") is not None and row.get("prior_sigma") is not None:
            prior = {"kind": "truncated_normal", "mean": _number(name, row["prior_mu"])}
            made.put(f"bayes.priors.{name}", {**prior, "sd": _number(name, row["prior_sigma"])})
    for name in _SCALINGS:
        if row := bounds.get(name):
            made.put(f"scaling.{name}_bounds", [_number(name, row.get(k)) for k in ("min", "max")])


def _table(made: Imported, key: str) -> list[tuple[str, Any]]:
    """The entries of a table that may also be absent or null."""
    found = {k: v for k, v in made.given.items() if k == key or k.startswith(f"{key}.")}
    made.taken |= found.keys()
    return [(k.removeprefix(f"{key}."), v) for k, v in found.items() if k != key]


def _solver(made: Imported, sampled: bool) -> None:
    nlsq = "optimization.nlsq"
    made.move(f"{nlsq}.max_iterations", "solver.max_evaluations", int)
    made.move(f"{nlsq}.tolerance", "solver.cost_tol")
    made.move(f"{nlsq}.xtol", "solver.step_tol")
    made.move(f"{nlsq}.gtol", "solver.gradient_tol")
    made.move(
        f"{nlsq}.memory_fraction", "streaming.memory_fraction", lambda v: min(max(v, 0.1), 0.9)
    )
    loss = str(made.value(f"{nlsq}.loss", "soft_l1"))
    # A posterior has a Gaussian likelihood.
    made.put("solver.loss", "linear" if sampled else loss)
    if loss != "linear" and not sampled:
        made.put("solver.loss_scale", SIGMA)
    if made.value(f"{nlsq}.diagnostics.enabled", False):
        made.put("output.diagnostics", True)
    made.move("optimization.recovery.max_attempts", "solver.recovery", int)
    if made.value("optimization.recovery.enable", True) is False:
        made.put("solver.recovery", 0)


def _scaling(made: Imported) -> None:
    layers = "optimization.nlsq.anti_degeneracy"
    mode = str(made.value(f"{layers}.per_angle_mode", "individual"))
    if made.value(f"{layers}.enable", False) is False:
        mode = "individual"
    modes = {"auto": "auto_threshold", "constant": "fixed", "individual": "individual"}
    made.put("scaling.mode", modes.get(mode, mode))
    if mode == "fourier":
        made.move(f"{layers}.fourier_order", "scaling.order", int)


def _defences(made: Imported) -> None:
    """Layers that are on and change what is minimised."""
    layers = "optimization.nlsq.anti_degeneracy"
    on = made.value(f"{layers}.enable", False) and made.value(f"{layers}.execute_layers", True)
    flow = made.out["model"]["mode"] == "laminar_flow"

    def layer(theirs: str, ours: str, keys: Mapping[str, tuple[str, Callable]]) -> None:
        if on and made.value(f"{layers}.{theirs}.enable", False):
            made.put(f"defences.{ours}", {})
            for key, (to, change) in keys.items():
                made.move(f"{layers}.{theirs}.{key}", f"defences.{ours}.{to}", change)

    shares = {"target_cv": ("target_variation", float), "max_cv": ("largest_variation", float)}
    shares["target_contribution"] = ("target_share", float)
    if made.out["scaling"]["mode"] != "fixed":
        layer("regularization", "regularisation", shares)
    if flow:
        weights = {"alpha": ("exponent", float), "min_weight": ("minimum", float)}
        layer("shear_weighting", "shear_weights", weights)
    if "regularisation" in made.out.get("defences", {}):
        mode = made.value(f"{layers}.regularization.mode", "relative")
        made.put("defences.regularisation.mode", mode)


def _search(made: Imported) -> None:
    """Starts or CMA-ES where they are asked for, and nothing is weighted by an earlier fit."""
    nlsq = "optimization.nlsq"
    many, cmaes = (made.value(f"{nlsq}.{n}.enable", False) for n in ("multi_start", "cmaes"))
    if "defences" in made.out or not (many or cmaes):
        return
    if cmaes:
        made.put("global.method", "cma_es")
        preset = str(made.value(f"{nlsq}.cmaes.preset", "cmaes")).removeprefix("cmaes").strip("-")
        made.put("global.preset", preset if preset in ("fast", "global") else "default")
    else:
        made.put("global.method", "multi_start")
        made.move(f"{nlsq}.multi_start.n_starts", "global.starts", int)
        made.move(f"{nlsq}.multi_start.seed", "global.seed", int)
        made.move(f"{nlsq}.multi_start.refine_top_k", "global.refine", int)
        if made.value(f"{nlsq}.multi_start.use_screening", True):
            made.move(f"{nlsq}.multi_start.screen_keep_fraction", "global.keep")


def _bayes(made: Imported) -> None:
    mcmc = "optimization.mcmc"
    made.put("bayes", made.out.get("bayes", {}))
    for key, to in (("num_warmup", "warm_up"), ("num_samples", "draws"), ("num_chains", "chains")):
        made.move(f"{mcmc}.{key}", f"bayes.{to}", int)
    made.move(f"{mcmc}.max_tree_depth", "bayes.depth", int)
    made.move(f"{mcmc}.target_accept_prob", "bayes.target_acceptance")
    made.move("optimization.cmc.per_shard_timeout", "bayes.shards.timeout")
    made.move("optimization.cmc.heartbeat_timeout", "bayes.shards.heartbeat")
    made.move("optimization.cmc.combination.min_success_rate", "bayes.shards.success")


def translate(tree: Mapping[str, Any]) -> Imported:
    """The tables of a configuration of theirs, and what became of each of its keys.

    **Raises:** `ConfigError` for values that mean nothing.
    """
    made = Imported(_flat(tree))
    mode = _mode(made)
    sampled = str(made.value("optimization.method", "nlsq")) in ("mcmc", "cmc")
    _data(made)
    _parameters(made, mode, sampled)
    _solver(made, sampled)
    _scaling(made)
    if not sampled:
        _defences(made)
    _search(made)
    if sampled:
        _bayes(made)
    directory = made.value("output.directory")
    made.put("output.directory", None if directory is None else str(directory))
    if made.value("plotting.save_plots", True) is False:
        made.put("output.plots", False)
    return made


def import_configuration(path: str) -> str:
    """A configuration in TOML from one in YAML, with what has no counterpart in comments.

    **Raises:** `ConfigError` for a file that is none of theirs.
    """
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(
            f"import needs PyYAML; install it with {how_to_install('program')}"
        ) from (error)
    import tomli_w

    try:
        with open(path, encoding="utf-8") as stream:
            tree = yaml.safe_load(stream)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from error
    if not isinstance(tree, Mapping) or "analysis_mode" not in tree:
        raise ConfigError(
            f"{path}: is no configuration of homodyne 2.x or xpcsjax, it has no analysis_mode"
        )
    try:
        made = translate(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    text = tomli_w.dumps(made.out)
    # Without its text: its lines are none of the file.
    source = Source(f"{path}, translated")
    refuse_without_effect(check_settings(made.out, source), source)
    lines = [f"# From {os.path.basename(path)}, by xpcs-eqx import."]
    lines[0] += " Keys without a counterpart:" if made.left else ""
    by_reason: dict[str, list[str]] = {}
    for key, reason in made.left.items():
        value = f" = {made.given[key]!r}" if key in made.given else ""
        by_reason.setdefault(reason, []).append(f"{key}{value}")
    for reason, keys in by_reason.items():
        lines += [f"# {reason}:", *(f"#   {one}" for one in keys)]
    return "\n".join([text.rstrip(), "", *lines])
