"""ArviZ: labelled draws, diagnostics and plots. The only file that uses it."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import DataError, ModelError, how_to_install
from ..files import replacing

_MISSING = (
    "labelled draws, diagnostics and plots of a posterior need ArviZ; "
    f"install it with: {how_to_install('bayes')}"
)
# Plots of many entries take long and show little; an angle is an entry.
MOST = 12
PLOTS = ("pair", "forest", "energy", "autocorr", "rank", "ess", "trace")


def _parts():
    try:
        import arviz_base
        import arviz_stats
    except ImportError as error:
        raise ModelError(_MISSING) from error
    return arviz_base, arviz_stats


def datatree(
    posterior: Mapping[str, np.ndarray],
    sample_stats: Mapping[str, np.ndarray],
    coordinates: Mapping[str, Any],
    dims: Mapping[str, list[str]],
    attributes: Mapping[str, Any],
    leading: tuple[str, ...] = ("chain", "draw"),
) -> Any:
    """An ArviZ DataTree; arrays begin with the dimensions `leading`.

    Without `sample_stats` there is no group of that name.

    **Raises:** `ModelError` with what to install when ArviZ is missing.
    """
    base, _ = _parts()
    groups = {"posterior": dict(posterior), "sample_stats": dict(sample_stats)}
    tree = base.from_dict(
        {name: content for name, content in groups.items() if content},
        sample_dims=list(leading),
        coords=dict(coordinates),
        dims=dict(dims),
    )
    # ArviZ 1.3 believes this of whatever is taken out of the tree, a single shard as well.
    for name in tree.children:
        tree[name].attrs.pop("sample_dims", None)
    tree["posterior"].attrs.update(attributes)
    return tree


def write_netcdf(tree: Any, path: str) -> None:
    """The tree as NetCDF, whole or not at all."""
    with replacing(path) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf")


# The group of a file from which a posterior is read back; ArviZ leaves it alone.
_OWN = "xpcs_eqx"


def with_arrays(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree with a group of arrays without labels."""
    import xarray

    variables = {
        name: ([f"{name}_{i}" for i in range(np.ndim(value))], value)
        for name, value in arrays.items()
    }
    tree[_OWN] = xarray.DataTree(xarray.Dataset(variables))
    return tree


def read_netcdf(path: str) -> dict[str, np.ndarray]:
    """The arrays that `with_arrays` added to the tree of a file; none where there are none.

    **Raises:** `DataError` for what is no NetCDF file; `ModelError` when ArviZ is missing.
    """
    _parts()
    import xarray

    if not os.path.isfile(path):
        raise DataError(f"{path}: there is no such file")
    try:
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            if _OWN not in tree.children:
                return {}
            own = tree[_OWN].data_vars
            return {str(name): np.array(value) for name, value in own.items()}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a NetCDF file that can be read ({error})") from error


def rhat(draws: Float[np.ndarray, "chain draw"]) -> float:
    """Rank-normalised split R-hat (Vehtari et al., Bayesian Analysis 16, 667 (2021)).

    NaN for chains that never moved.
    """
    if np.all(np.ptp(draws, axis=1) == 0):
        return float("nan")
    return float(_parts()[1].rhat(draws, method="rank"))


def ess(draws: Float[np.ndarray, "chain draw"], method: str) -> float:
    """Effective sample size: `"bulk"` or `"tail"`."""
    keywords: dict[str, Any] = {"prob": (0.05, 0.95)} if method == "tail" else {}
    return float(_parts()[1].ess(draws, method=method, **keywords))


def bfmi(energy: Float[np.ndarray, "chain draw"]) -> Float[np.ndarray, "chain"]:
    """Bayesian fraction of missing information of each chain."""
    step = np.diff(energy, axis=1)
    return np.mean(step**2, axis=1) / np.var(energy, axis=1)


def psis(
    log_weights: Float[np.ndarray, "draw"],
) -> tuple[Float[np.ndarray, "draw"], float]:
    """Pareto-smoothed log weights, and the shape k of their tail.

    Vehtari et al., JMLR 25 (2024).

    **Raises:** `ModelError` when ArviZ is missing.
    """
    _parts()
    from arviz_stats.base.array import array_stats

    # It takes the log likelihoods whose inverses are the weights.
    smoothed, k = array_stats.psislw(-np.asarray(log_weights))
    return np.asarray(smoothed), float(k)


def _without_single(dataset: Any) -> Any:
    """Without dimensions of one entry, such as a single angle: a pair plot cannot show them."""
    single = [d for d, n in dataset.sizes.items() if n == 1 and d not in ("chain", "draw")]
    return dataset.squeeze(single, drop=True)


def unique_labels(values: Float[np.ndarray, "entry"]) -> np.ndarray:
    """The values where all differ, else their numbers 0, 1, …: what is looked up by label."""
    return values if np.unique(values).size == values.size else np.arange(values.size)


def shown_names(tree: Any, names: tuple[str, ...]) -> list[str]:
    """Of the variables those with fewest entries, as many as have `MOST` together; in order."""
    sizes = {name: int(np.prod(tree["posterior"][name].shape[2:])) for name in names}
    chosen, total = set(), 0
    for name in sorted(names, key=lambda name: sizes[name]):
        if chosen and total + sizes[name] > MOST:
            break
        chosen.add(name)
        total += sizes[name]
    return [name for name in names if name in chosen]


def _standardised(dataset: Any) -> Any:
    """Draws in standard deviations from their mean; what does not vary stays as it is."""
    if "draw" not in dataset.dims:
        return dataset
    spread = dataset.std(("chain", "draw"))
    return (dataset - dataset.mean(("chain", "draw"))) / spread.where(spread > 0, 1.0)


# Thousands of opaque points would hide where most of them are. The band of ranks of several chains
# that ArviZ 0.8 simulates holds everything; that of one chain is right for each of them.
_LOOKS: dict[str, dict[str, Any]] = {
    "pair": {"visuals": {"scatter": {"alpha": 0.2, "size": 8}}},
    "rank": {"stats": {"ecdf_pit": {"n_chains": 1}}},
}


def write_plots(
    folder: str,
    tree: Any,
    names: tuple[str, ...],
    which: tuple[str, ...] = PLOTS,
    form: str = "png",
) -> list[str]:
    """Diagnostic plots as files of a format, png, svg or pdf; returns the paths.

    **Arguments:**

    - `names`: variables to show, as far as they have no more than `MOST` entries together.
    - `which`: of pair, forest, energy, autocorr, rank, ess, trace.

    **Raises:** `ModelError` for an unknown plot, or when ArviZ is missing.
    """
    unknown = [plot for plot in which if plot not in PLOTS]
    if unknown:
        raise ModelError(f"no plot {unknown[0]!r}; there are {', '.join(PLOTS)}")
    _parts()
    import arviz_base
    import arviz_plots
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    paths = []
    shown = shown_names(tree, names)
    tree = tree.map_over_datasets(_without_single)
    for plot in which:
        draw = getattr(arviz_plots, f"plot_{plot}")
        keywords: dict[str, Any] = {} if plot == "energy" else {"var_names": shown}
        keywords |= _LOOKS.get(plot, {})
        # Parameters of all magnitudes stand on one axis there.
        seen = tree.map_over_datasets(_standardised) if plot == "forest" else tree
        # A pair plot has a panel for every two variables, more than ArviZ lets pass by itself.
        others = set(pyplot.get_fignums())
        try:
            with arviz_base.rc_context({"plot.max_subplots": MOST**2}):
                collection = draw(seen, backend="matplotlib", **keywords)
            chart = collection.viz["figure"].item()
            # Without it labels run into the panels above and below.
            chart.set_layout_engine("constrained")
            if plot == "pair":
                for axes in chart.axes:
                    axes.xaxis.set_major_locator(MaxNLocator(3))
                    axes.yaxis.set_major_locator(MaxNLocator(3))
                    axes.tick_params(axis="x", labelrotation=45)
            if plot == "energy":
                # Of chains by number.
                chart.axes[0].yaxis.set_major_locator(MaxNLocator(integer=True))
            if plot == "forest":
                axis = "(draw − mean) / standard deviation of all chains"
                chart.supxlabel(axis, fontsize="medium")
            path = os.path.join(folder, f"{plot}.{form}")
            collection.savefig(path)
            paths.append(path)
        finally:
            # Its own alone: others may be the caller's.
            for number in set(pyplot.get_fignums()) - others:
                pyplot.close(number)
    return paths
