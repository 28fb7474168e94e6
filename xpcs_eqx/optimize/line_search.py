"""How far along a direction: the line searches of Optax, for functions that cannot be traced.

Optax wants to evaluate φ(step) itself, inside a compiled loop. Its searches are deterministic, so
they are run again from their beginning with a table of what is known of φ, until they ask for no
step that is not in it; a step costs a pass over the data, a run of the search next to nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..compiling import quick_jit

T = TypeVar("T")

# The searches: `first` is the step tried first, `longest` the largest one, `tries` the number of
# steps at most. Optax is imported where it is used: most fits never need it, and importing it takes
# time.


def zoom(tries: int, first: Array, longest: Array) -> Any:
    """Bracketing and zoom to the strong Wolfe conditions.

    Nocedal & Wright, Numerical Optimization (2006), algorithms 3.5 and 3.6.
    """
    import optax

    return optax.scale_by_zoom_linesearch(
        tries, max_learning_rate=longest, initial_guess_strategy="keep"
    )


def backtracking(tries: int, first: Array, longest: Array) -> Any:
    """Shorter and shorter steps until the loss falls enough (Armijo)."""
    return _halving(tries, first, atol=0.0)


def full_step(tries: int, first: Array, longest: Array) -> Any:
    """The first step as it is, wherever it leads, halved while the model has no value there.

    Only the guard on the loss stands between it and divergence.
    """
    return _halving(tries, first, atol=float(np.finfo(float).max))


def _halving(tries, first, atol):
    import optax

    return optax.scale_by_backtracking_linesearch(
        tries, max_learning_rate=first, decrease_factor=0.5, increase_factor=np.inf, atol=atol
    )


Search = Callable[[int, Array, Array], Any]


class Known(NamedTuple):
    """Steps that were looked at, with φ and φ' there; NaN where there is none yet."""

    step: Float[np.ndarray, "tried"]
    value: Float[np.ndarray, "tried"]
    slope: Float[np.ndarray, "tried"]


def _function_of(known: Known) -> Callable[[Array], Array]:
    """φ by a table. What is not in it is −∞ and flat: no search looks any further then."""

    def looked_up(step):
        same = step == known.step
        place = jnp.argmax(same)
        there = jnp.any(same)
        value, slope = jnp.asarray(known.value)[place], jnp.asarray(known.slope)[place]
        return jnp.where(there, value, -jnp.inf), jnp.where(there, slope, 0.0)

    @jax.custom_jvp
    def function(step):
        return looked_up(step)[0]

    @function.defjvp
    def along(primals, tangents):
        value, slope = looked_up(primals[0])
        return value, slope * tangents[0]

    return function


@quick_jit
def _run(search, tries, value, slope, first, longest, known):
    rule = search(tries, first, longest)
    # Along a line: the parameter is the step itself.
    origin, unit = jnp.zeros(()), jnp.ones(())
    state = rule.init(origin)._replace(learning_rate=first)
    _, found = rule.update(
        unit, state, origin, value=value, grad=slope, value_fn=_function_of(known)
    )
    return found.learning_rate, found.value


def search_line(
    search: Search,
    tries: int,
    look: Callable[[float], tuple[float, float, T]],
    value: float,
    slope: float,
    first: float,
    longest: float,
) -> tuple[float, float, T] | None:
    """Search along φ, φ(0) = `value`, φ'(0) = `slope` < 0.

    - `look`: φ, φ' and whatever belongs to them at a step; φ is infinite where there is none.

    **Returns:** the step, φ there and what belongs to it; `None` where no step was found.
    """
    blank = np.full(tries + 2, np.nan)
    known, seen = Known(blank, blank.copy(), blank.copy()), []
    given = tuple(map(np.asarray, (value, slope, min(first, longest), longest)))
    while True:
        step, found = (float(one) for one in _run(search, tries, *given, known))
        if found != -np.inf:
            break
        at = look(step)
        place = len(seen)
        known.step[place], known.value[place], known.slope[place] = step, at[0], at[1]
        seen.append(at)
    if not (step > 0 and np.isfinite(found)):
        return None
    return step, found, seen[int(np.flatnonzero(known.step == step)[0])][2]
