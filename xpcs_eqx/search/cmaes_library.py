"""The one place that knows pycma: a run of CMA-ES, asked for points and told their costs.

pycma and not evosax, which runs CMA-ES inside JAX: pycma is by the author of the method, needs
NumPy alone, and brings what restarts in a box depend on, a transform for bounds and the rules by
which a run has ended. What JAX is good for, the costs of a generation in one batched call, is done
here with either.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import ModelError

_STOPS = {
    "tolx": "the distribution is narrower than its tolerance",
    "tolxstagnation": "its mean no longer moves",
    "tolstagnation": "its best and median costs no longer fall",
    "tolfun": "all costs of a generation are the same",
    "tolfunhist": "the best costs of the last generations are the same",
    "tolflatfitness": "all costs of a generation are the same",
    "tolfacupx": "the step size grows without end",
    "tolupsigma": "the step size grows without end",
    "tolconditioncov": "the distribution is too elongated to be told from a line",
    "noeffectaxis": "steps vanish by rounding",
    "noeffectcoord": "steps vanish by rounding",
}


def require_pycma() -> Any:
    """The library.

    **Raises:** `ModelError` with what to install when it is not there.
    """
    # Not at the top: pycma is an extra, and slow to import.
    try:
        import cma
    except ImportError as error:
        raise ModelError(
            "CMA-ES needs pycma; install it with: pip install 'xpcs-eqx[global]'"
        ) from error
    return cma


def default_population(dimension: int) -> int:
    """4 + ⌊3 ln n⌋ points a generation; Hansen, arXiv:1604.00772, table 1."""
    return 4 + int(3 * np.log(dimension))


class Evolution:
    """One run in the unit cube: a mean and a normal distribution about it that adapts.

    It changes from generation to generation and lives as long as one run.

    Bounds are kept by pycma's `BoundTransform`: the search is unbounded and each point is folded
    smoothly back into the cube. Every point is then worth evaluating, a minimum on a face can be
    approached from the inside, and costs stay what they are, where a penalty would need a weight
    that suits costs of any size.
    """

    def __init__(
        self,
        mean: Float[np.ndarray, "variable"],
        sigma: float,
        population: int,
        narrow: float,
        random: np.random.Generator,
    ):
        self.dimension = len(mean)
        # A covariance needs two variables; a single one gets a companion that nothing depends on.
        padded = np.append(mean, 0.5) if self.dimension == 1 else np.asarray(mean)
        options = {
            "bounds": [0.0, 1.0],
            "popsize": population,
            # With a source of its own and no seed the library leaves NumPy's global one alone.
            "randn": lambda *shape: random.standard_normal(shape),
            "seed": np.nan,
            "CMA_mirrors": 0,
            "tolx": narrow,
            "tolflatfitness": 10,
            "maxiter": np.inf,
            # Nothing printed, written or read: by default a file of the working folder can steer a
            # run.
            "verbose": -9,
            "signals_filename": "",
        }
        self._strategy = require_pycma().CMAEvolutionStrategy(padded, sigma, options)
        self._points: list[np.ndarray] = []

    @property
    def sigma(self) -> float:
        """Standard deviation in the unit cube, without what the covariance adds."""
        return float(self._strategy.sigma)

    def ask(self) -> Float[np.ndarray, "population variable"]:
        """The points of the next generation."""
        self._points = self._strategy.ask()
        return np.clip(np.stack(self._points)[:, : self.dimension], 0.0, 1.0)

    def tell(self, costs: Float[np.ndarray, "population"]) -> str:
        """Adapt to their costs, all finite; returns why the run ends, or nothing."""
        self._strategy.tell(self._points, costs.tolist())
        return "; ".join(
            _STOPS.get(name, f"pycma's criterion {name}") for name in self._strategy.stop()
        )
