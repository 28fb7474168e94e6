"""Many starts, of which batches of the data choose one: what is bad shows on few points."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..compiling import quick_jit
from ..errors import ModelError
from ..objective.curve import curve_cost
from .candidates import AbstractSampler, AbstractSpread, AroundStart, LatinHypercube
from .curve_problem import CurveProblem
from .points import Chunk, Points
from .sources import AbstractSource
from .two_time_problem import TwoTimeProblem


class TournamentState(eqx.Module):
    """Candidates and what the rounds made of them; arrays only, so that a checkpoint can hold it.

    - `candidates`: physical parameters; those given come first.
    - `alive`: still in; `table`: cost a point in each round, NaN where a candidate was out.
    - `round`: rounds played.
    """

    candidates: Float[np.ndarray, "candidate variable"]
    alive: Bool[np.ndarray, "candidate"]
    table: Float[np.ndarray, "round candidate"]
    round: Int[np.ndarray, ""]

    @property
    def scores(self) -> Float[np.ndarray, "candidate"]:
        """Mean cost a point over the rounds played, infinite for who is out or never finite."""
        played = self.table[: int(self.round)]
        mean = np.mean(played, axis=0) if len(played) else np.zeros(self.alive.shape)
        return np.where(self.alive & np.isfinite(mean), mean, np.inf)

    @property
    def winner(self) -> int:
        """The best candidate so far; the earlier one of equals."""
        return int(np.argmin(np.where(self.alive, self.scores, np.inf)))

    @property
    def best(self) -> Float[np.ndarray, "variable"]:
        """Parameters of the winner."""
        return self.candidates[self.winner]

    @property
    def found(self) -> bool:
        """Whether any candidate has a finite cost."""
        return bool(np.isfinite(self.scores).any())


class Tournament(eqx.Module):
    """Elimination rounds among starts, each on another batch of points.

    - `candidates`: how many; custom ones and the start of the fit come first, a sample follows.
    - `rounds`: batches; `keep`: the fraction that stays after each, at least one.
    - `sampler`, `spread`: how the sample fills which box.
    - `custom`: candidates of the user.
    - `batch`: points of one round, drawn from all data; `seed`: of sample and batches.

    **Raises:** `ModelError` for numbers that leave nothing to choose.
    """

    candidates: int = eqx.field(static=True, default=32)
    rounds: int = eqx.field(static=True, default=3)
    keep: float = eqx.field(static=True, default=0.5)
    sampler: AbstractSampler = LatinHypercube()
    spread: AbstractSpread = AroundStart()
    custom: Float[np.ndarray, "custom variable"] | None = None
    batch: int = eqx.field(static=True, default=10_000)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        if self.candidates < 1 or self.rounds < 1 or self.batch < 1 or not 0 < self.keep < 1:
            raise ModelError(
                f"a tournament of {self.candidates} candidates, {self.rounds} rounds of "
                f"{self.batch} points, keeping {self.keep}: counts must be at least 1 and the "
                "fraction between 0 and 1"
            )

    def init(
        self,
        start: Float[np.ndarray, "variable"],
        lower: Float[np.ndarray, "variable"],
        upper: Float[np.ndarray, "variable"],
    ) -> TournamentState:
        """The candidates before the first round.

        **Raises:** `ModelError` for custom candidates of another length, not finite or outside the
        bounds.
        """
        given = np.zeros((0, start.size)) if self.custom is None else np.asarray(self.custom, float)
        given = np.atleast_2d(given)
        if given.shape[1] != start.size:
            raise ModelError(
                f"custom candidates have {given.shape[1]} parameters, the fit {start.size}"
            )
        wrong = ~(np.isfinite(given) & (given >= lower) & (given <= upper)).all(axis=1)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise ModelError(
                f"custom candidate {i} {given[i]} must be finite and inside the bounds"
            )
        low, high = self.spread.box(start, lower, upper)
        drawn = max(self.candidates - len(given) - 1, 0)
        unit = self.sampler.unit(drawn, start.size, self.seed) if drawn else np.zeros((0, low.size))
        everyone = np.concatenate([given, start[None], low + unit * (high - low)])
        n = len(everyone)
        table = np.full((self.rounds, n), np.nan)
        return TournamentState(everyone, np.ones(n, bool), table, np.asarray(0))

    def step(
        self, state: TournamentState, costs: Float[np.ndarray, "candidate"]
    ) -> TournamentState:
        """One round: costs a point of all candidates on its batch. What is not finite loses."""
        number = int(state.round)
        table = state.table.copy()
        table[number] = np.where(state.alive, costs, np.nan)
        played = TournamentState(state.candidates, state.alive, table, np.asarray(state.round + 1))
        stay = max(math.ceil(self.keep * np.count_nonzero(state.alive)), 1)
        scores = played.scores
        order = np.argsort(scores, kind="stable")[:stay]
        alive = np.zeros_like(state.alive)
        alive[order] = np.isfinite(scores[order])
        # With no finite cost at all there is nothing to choose by.
        alive = alive if alive.any() else state.alive
        return TournamentState(state.candidates, alive, table, np.asarray(state.round + 1))


@quick_jit
def _candidate_costs(kernel, candidates, chunk):
    x, y, root = kernel.points(chunk, candidates.dtype)

    def cost(parameters):
        return curve_cost(kernel.function, kernel.loss, x, y, root, parameters)

    return jax.vmap(cost)(candidates)


def candidate_costs(
    problem: CurveProblem, candidates: Float[np.ndarray, "candidate variable"], chunk: Chunk
) -> Float[np.ndarray, "candidate"]:
    """Cost a point of all candidates on one chunk, in one compiled call; data alone count."""
    costs: Array = _candidate_costs(problem.kernel, jnp.asarray(candidates, dtype=float), chunk)
    return np.asarray(costs) / max(np.count_nonzero(np.asarray(chunk.root_weights) > 0), 1)


def sample_points(source: AbstractSource, n: int, seed: int) -> Points:
    """`n` points drawn evenly from all that have a weight, or all of them, in random order.

    One pass; memory for twice as many and a chunk. Equal for an equal seed and source.
    """
    random = np.random.default_rng((seed, n))
    kept: Points | None = None
    marks = np.zeros(0)
    for chunk in source.chunks():
        parts = Points(
            *(np.asarray(a) for a in (chunk.x, chunk.y, chunk.root_weights, chunk.group))
        )
        # Those with the n smallest of evenly drawn marks.
        mark = random.random(parts.y.size)
        chosen = parts.root_weights > 0
        if marks.size == n:
            chosen &= mark < marks[-1]
        new = Points(*(a[chosen] for a in parts))
        kept = new if kept is None else _together(kept, new)
        marks = np.concatenate([marks, mark[chosen]])
        order = np.argsort(marks, kind="stable")[:n]
        kept, marks = Points(*(a[order] for a in kept)), marks[order]
    if kept is None or not marks.size:
        raise ModelError("no point of the source has a weight; there is nothing to choose by")
    return kept


def _together(first: Points, second: Points) -> Points:
    return Points(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def on_batches(
    tournament: Tournament, problem: CurveProblem
) -> Callable[[TournamentState], Float[np.ndarray, "candidate"]]:
    """Costs a point of all candidates, in each round on another batch of the points."""
    points = sample_points(problem.source, tournament.batch * tournament.rounds, tournament.seed)
    # Fewer points than one batch: the rounds share them.
    size = min(tournament.batch, points.y.size)

    def costs(state):
        here = (int(state.round) * size + np.arange(size)) % points.y.size
        return candidate_costs(problem, state.candidates, Chunk(*(part[here] for part in points)))

    return costs


def on_everything(
    problem: TwoTimeProblem,
) -> Callable[[TournamentState], Float[np.ndarray, "candidate"]]:
    """Costs of those candidates that are left, on all maps: one pass for each of them."""
    known: dict[int, float] = {}

    def costs(state):
        for k in np.flatnonzero(state.alive):
            if int(k) not in known:
                known[int(k)] = problem.cost(state.candidates[k])
        return np.array([known.get(k, np.inf) for k in range(len(state.candidates))])

    return costs


def run_tournament(
    tournament: Tournament,
    problem: CurveProblem | TwoTimeProblem,
    state: TournamentState | None = None,
    callback: Callable[[TournamentState], Any] | None = None,
) -> TournamentState:
    """All rounds, or those that are left of `state`.

    Points are drawn in batches; of maps, whose pairs are all alike in what they tell, all count.
    `callback` sees the state after every round; a true return value ends the tournament.
    """
    if state is None:
        state = tournament.init(problem.start, problem.lower, problem.upper)
    if isinstance(problem, TwoTimeProblem):
        costs = on_everything(problem)
    else:
        costs = on_batches(tournament, problem)
    while int(state.round) < tournament.rounds:
        state = tournament.step(state, costs(state))
        if callback is not None and callback(state):
            break
    return state
