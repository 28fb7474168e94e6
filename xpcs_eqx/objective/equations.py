"""The one sum behind every fit, and the objective that makes it of a point."""

import operator
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float

from ..compiled import Later
from ..errors import PrecisionError
from ..parameters import AbstractVariables
from ..showing import Table, known


class NormalEquations(eqx.Module):
    """½ Σ ρ, Jᵀr, JᵀJ and the number of pairs of a part of the data.

    A monoid: `zero` and `+`. Sums over tiles, files, devices and machines are the same sum.
    Leading axes (an angle axis, say) are carried along.

    >>> import xpcs_eqx as xe
    >>> nothing = xe.objective.NormalEquations.zero(columns=2)
    >>> (nothing + nothing).hessian.shape
    (2, 2)
    """

    cost: Float[Array, "*batch"]
    gradient: Float[Array, "*batch column"]
    hessian: Float[Array, "*batch column column"]
    count: Float[Array, "*batch"]

    @classmethod
    def zero(cls, columns: int, batch: tuple[int, ...] = (), dtype=None) -> "NormalEquations":
        """The neutral element for `columns` columns and the given leading axes."""
        # By NumPy: an eager operation of JAX is a compilation.
        dtype = jnp.result_type(float if dtype is None else dtype)
        shapes = (batch, (*batch, columns), (*batch, columns, columns), batch)
        return cls(*(np.zeros(shape, dtype) for shape in shapes))  # pyright: ignore[reportArgumentType]

    def __add__(self, other: "NormalEquations") -> "NormalEquations":
        return jax.tree.map(operator.add, self, other)

    @property
    def diagonal(self) -> Float[Array, "*batch column"]:
        """The diagonal of JᵀJ."""
        return jnp.diagonal(self.hessian, axis1=-2, axis2=-1)

    def total(self) -> "NormalEquations":
        """The sum over the leading axis."""
        return jax.tree.map(lambda part: jnp.sum(part, axis=0), self)

    def transform(self, matrix: Float[Array, "column new"]) -> "NormalEquations":
        """The same for columns J·matrix, that is for variables v with u = matrix·v."""
        return NormalEquations(
            self.cost,
            jnp.einsum("...c,...cn->...n", self.gradient, matrix),
            jnp.einsum("...cn,...cd,...dm->...nm", matrix, self.hessian, matrix),
            self.count,
        )


class AbstractObjective(eqx.Module):
    """A sum of squares in solver coordinates.

    `evaluate` returns normal equations and a memo; the memo of the last accepted point is handed
    to the next evaluation, which may use it for precision but not for the value.
    """

    variables: AbstractVar[AbstractVariables]

    def __repr__(self) -> str:
        """What is fitted to what, and a table of what is varied with start and bounds."""
        # What is traced, or several stacked, has no numbers of its own.
        if not known(self) or np.ndim(self.variables.lower) != 1:
            return eqx.tree_pformat(self)
        return "\n".join([type(self).__name__, *self.about(), str(self.table())])

    def about(self) -> tuple[str, ...]:
        """What is fitted to what, in lines for people."""
        return ()

    def table(self) -> Table:
        """Start and bounds of the variables."""
        sides = (np.asarray(self.start), self.variables.lower, self.variables.upper)
        each = zip(self.names, *sides, strict=True)
        return Table(
            {n: {"start": float(x), "lower": float(a), "upper": float(b)} for n, x, a, b in each}
        )

    @property
    @abstractmethod
    def traceable(self) -> bool:
        """Whether `evaluate` may be compiled as a whole; else it loops in Python."""

    @property
    def in_parts(self) -> bool:
        """Whether `evaluate` is best called from Python, where its sum is spread over all cores."""
        return not self.traceable

    @property
    @abstractmethod
    def start(self) -> Float[Array, "variable"]:
        """Physical variables at the start."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""

    @property
    @abstractmethod
    def memo(self) -> Any:
        """The memo of the first evaluation."""

    @abstractmethod
    def evaluate(self, y: Float[Array, "variable"], memo: Any) -> tuple[NormalEquations, Any]:
        """Normal equations at coordinates `y`, and the memo that belongs to them."""

    def lower_parts(self, later: Later) -> None:
        """Compile what `evaluate` runs from Python, where that is `in_parts` and can be ahead.

        `later` is given what takes long.
        """
        del later

    @abstractmethod
    def cost(self, y: Float[Array, "variable"], memo: Any) -> Float[Array, ""]:
        """The cost alone, for less."""

    def cost_and_gradient(
        self, y: Float[Array, "variable"], memo: Any
    ) -> tuple[Float[Array, ""], Float[Array, "variable"]]:
        """The cost and Jᵀr. Objectives that make them for less than `evaluate` say how."""
        equations, _ = self.evaluate(y, memo)
        return equations.cost, equations.gradient

    def product(
        self, y: Float[Array, "variable"], v: Float[Array, "variable"]
    ) -> Float[Array, "variable"]:
        """JᵀJ v. Objectives of thousands of variables make it without JᵀJ."""
        return self.evaluate(y, self.memo)[0].hessian @ v

    def diagonal(self, y: Float[Array, "variable"]) -> Float[Array, "variable"]:
        """The diagonal of JᵀJ. Objectives of thousands of variables make it without the rest."""
        return self.evaluate(y, self.memo)[0].diagonal

    def spread(self) -> float:
        """½ Σ w (y − ȳ)² of the data: what a model that is a constant would leave of the cost.

        NaN where nothing is known of it.
        """
        return float("nan")


def require_double_precision(data: str = "a map") -> None:
    """Refuse to work in single precision; `data` says of what the normal equations are.

    **Raises:** `PrecisionError` with the line that switches double precision on.
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise PrecisionError(
            f"JAX runs in single precision, in which normal equations of {data} lose their "
            "meaning. "
            'Put jax.config.update("jax_enable_x64", True) at the top of the program'
        )
