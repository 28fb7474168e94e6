"""Many starts, of which batches of the data choose one: what is bad shows on few points."""

import dataclasses
import math
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ..arguments import Count, Fraction, Positive
from ..errors import ModelError
from ..objective import AbstractObjective, ArrayPoints, Chunk, CurveObjective
from ..optimize import AbstractPreparation, AbstractPreparationState, Telemetry
from .population import population_costs
from .starts import AbstractSampler, LatinHypercube


class TournamentState(AbstractPreparationState):
    """Candidates and what the rounds made of them; arrays only, so that a checkpoint can hold it.

    - `candidates`: physical parameters; those given come first.
    - `alive`: still in; `table`: cost a point in each round, NaN where a candidate was out.
    - `round`: rounds played; `evaluations`: passes over all data.
    """

    candidates: Float[np.ndarray, "candidate variable"]
    alive: Bool[np.ndarray, "candidate"]
    table: Float[np.ndarray, "round candidate"]
    round: Int[np.ndarray, ""]
    evaluations: Int[np.ndarray, ""]

    phase: ClassVar[str] = "tournament"

    @property
    def running(self):
        return int(self.round) < len(self.table)

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
    def best(self) -> Float[np.ndarray, "variable"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Parameters of the winner."""
        return self.candidates[self.winner]

    @property
    def summary(self):
        left = int(self.alive.sum())
        return f"tournament, round {int(self.round)}: {left} of {len(self.alive)} starts left"

    @property
    def telemetry(self):
        return Telemetry()


class Tournament(AbstractPreparation):
    """Elimination rounds among starts, for a curve each on another batch of its points.

    Of maps, whose pairs are all alike in what they tell, all count in every round.

    - `candidates`: how many; custom ones and the start of the fit come first, a sample follows.
    - `rounds`: batches; `keep`: the fraction that stays after each, at least one.
    - `around`: the sample fills start ± `around`·|start| inside the bounds, ± `around` where the
        start is zero; `None` for all of the bounds, which must be finite.
    - `sampler`: how it fills them; `custom`: candidates of the user.
    - `batch`: points of one round, drawn from all data; `seed`: of sample and batches.

    **Raises:** `ModelError` for numbers that leave nothing to choose.
    """

    candidates: Count = eqx.field(static=True, default=32)
    rounds: Count = eqx.field(static=True, default=3)
    keep: Fraction = eqx.field(static=True, default=0.5)
    around: Positive | None = eqx.field(static=True, default=0.5)
    sampler: AbstractSampler = LatinHypercube()
    custom: Float[np.ndarray, "*custom variable"] | None = None
    batch: Count = eqx.field(static=True, default=10_000)
    seed: int = eqx.field(static=True, default=0)

    def begin(self, objective, x):
        variables = objective.variables
        lower, upper = (np.asarray(bound, float) for bound in (variables.lower, variables.upper))
        return self.drawn(np.asarray(x, float), lower, upper)

    def drawn(
        self,
        start: Float[np.ndarray, "variable"],
        lower: Float[np.ndarray, "variable"],
        upper: Float[np.ndarray, "variable"],
    ) -> TournamentState:
        """The candidates before the first round.

        **Raises:** `ModelError` for custom candidates of another length, not finite or outside the
        bounds, and for infinite bounds that are to be filled.
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
        low, high = self._box(start, lower, upper)
        drawn = max(self.candidates - len(given) - 1, 0)
        unit = self.sampler.unit(drawn, start.size, self.seed) if drawn else np.zeros((0, low.size))
        everyone = np.concatenate([given, start[None], low + unit * (high - low)])
        n, nothing = len(everyone), np.asarray(0)
        table = np.full((self.rounds, n), np.nan)
        return TournamentState(  # pyright: ignore[reportCallIssue]
            candidates=everyone,
            alive=np.ones(n, bool),
            table=table,
            round=nothing,
            evaluations=nothing,
        )

    def _box(self, start, lower, upper):
        """Lower and upper corner of the box that the sample fills."""
        if self.around is not None:
            reach = self.around * np.where(start == 0, 1.0, np.abs(start))
            return np.maximum(start - reach, lower), np.minimum(start + reach, upper)
        missing = np.flatnonzero(~(np.isfinite(lower) & np.isfinite(upper)))
        if missing.size:
            i = missing[0]
            raise ModelError(
                f"parameter {i} has bounds [{lower[i]}, {upper[i]}]; candidates over the bounds "
                "need finite ones. Give them, or candidates around the start (around=0.5)"
            )
        return lower, upper

    def played(
        self, state: TournamentState, costs: Float[np.ndarray, "candidate"], passes: int = 0
    ) -> TournamentState:
        """One round: costs a point of all candidates on its batch. What is not finite loses."""
        table = state.table.copy()
        table[int(state.round)] = np.where(state.alive, costs, np.nan)
        state = dataclasses.replace(
            state,
            table=table,
            round=np.asarray(state.round + 1),
            evaluations=np.asarray(state.evaluations + passes),
        )
        stay = max(math.ceil(self.keep * np.count_nonzero(state.alive)), 1)
        scores = state.scores
        order = np.argsort(scores, kind="stable")[:stay]
        alive = np.zeros_like(state.alive)
        alive[order] = np.isfinite(scores[order])
        # With no finite cost at all there is nothing to choose by.
        return dataclasses.replace(state, alive=alive if alive.any() else state.alive)

    def machine(self, objective):
        if isinstance(objective, CurveObjective):
            costs = self._on_batches(objective)
        else:
            costs = self._on_everything(objective)

        def step(state):
            assert isinstance(state, TournamentState)
            found, passes = costs(state)
            return self.played(state, found, passes)

        return step

    def _on_batches(self, objective: CurveObjective):
        """Costs a point of all candidates, in each round on another batch of the points."""
        points = sample_points(
            objective.points.chunks(), objective, self.batch * self.rounds, self.seed
        )
        # Fewer points than one batch: the rounds share them.
        size = min(self.batch, points.y.size)

        def costs(state):
            here = (int(state.round) * size + np.arange(size)) % points.y.size
            batch = ArrayPoints(*(jnp.asarray(part[here], float)[None] for part in points))
            return batch_costs(objective, state.candidates, batch), int(state.round == 0)

        return costs

    def _on_everything(self, objective: AbstractObjective):
        """Costs of those candidates that are left, on all data: one pass for each of them."""
        known: dict[int, float] = {}

        def costs(state):
            new = [int(k) for k in np.flatnonzero(state.alive) if int(k) not in known]
            if new:
                known.update(
                    zip(new, population_costs(objective, state.candidates[new]), strict=True)
                )
            return np.array([known.get(k, np.inf) for k in range(len(state.candidates))]), len(new)

        return costs


def batch_costs(
    objective: CurveObjective,
    candidates: Float[np.ndarray, "candidate variable"],
    batch: ArrayPoints,
) -> Float[np.ndarray, "candidate"]:
    """Cost a point of all candidates on one batch, in one compiled call; data alone count."""
    alone = dataclasses.replace(
        objective,
        points=batch,
        penalties=(),
        # The weights of groups are in those of the points.
        model=dataclasses.replace(objective.model, group_weights=None),
    )
    return population_costs(alone, candidates) / max(int(np.count_nonzero(batch.root_weights)), 1)


class SampledPoints(NamedTuple):
    """Points drawn from a source; `root_weights` hold those of their groups."""

    x: Float[np.ndarray, "point *coordinate"]
    y: Float[np.ndarray, "point"]
    root_weights: Float[np.ndarray, "point"]


def sample_points(
    chunks: Iterable[Chunk], objective: CurveObjective, n: int, seed: int
) -> SampledPoints:
    """`n` points drawn evenly from all that have a weight, or all of them, in random order.

    One pass; memory for twice as many and a chunk. Equal for an equal seed and equal chunks.
    """
    random = np.random.default_rng((seed, n))
    kept: SampledPoints | None = None
    marks = np.zeros(0)
    for chunk in chunks:
        root = objective.model.root_weights(chunk)
        parts = SampledPoints(np.asarray(chunk.x), np.asarray(chunk.y), root)
        # Those with the n smallest of evenly drawn marks.
        mark = random.random(parts.y.size)
        chosen = root > 0
        if marks.size == n:
            chosen &= mark < marks[-1]
        new = SampledPoints(*(a[chosen] for a in parts))
        if kept is not None:
            new = SampledPoints(*map(np.concatenate, zip(kept, new, strict=True)))
        marks = np.concatenate([marks, mark[chosen]])
        order = np.argsort(marks, kind="stable")[:n]
        kept, marks = SampledPoints(*(a[order] for a in new)), marks[order]
    if kept is None or not marks.size:
        raise ModelError("no point of the source has a weight; there is nothing to choose by")
    return kept
