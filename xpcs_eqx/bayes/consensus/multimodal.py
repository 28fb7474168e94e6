"""Combination of shards whose posteriors have several modes."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ...errors import ModelError
from ..modes import WEIGHT
from .combiners import (
    AbstractCombiner,
    Combined,
    gaussian,
    generator_of,
    precisions_of,
)

# Distance of two modes in standard deviations along the line between them (Ashman et al.,
# Astronomical Journal 108, 2348 (1994)).
_APART = 2.5
_ROUNDS = 100
_STARTS = 4


class Mixture(NamedTuple):
    """Gaussians that together describe the draws of a shard."""

    weights: Float[np.ndarray, "mode"]
    means: Float[np.ndarray, "mode entry"]
    covariances: Float[np.ndarray, "mode entry entry"]


def _log_gaussian(draws, mean, covariance):
    sign, log_det = np.linalg.slogdet(covariance)
    del sign
    away = draws - mean
    squares = np.sum(away * np.linalg.solve(covariance, away.T).T, axis=1)
    return -0.5 * (squares + log_det + draws.shape[1] * np.log(2 * np.pi))


def _maximised(draws, mixture: Mixture, ridge: np.ndarray) -> tuple[Mixture, float]:
    """Expectation maximisation; the mixture and its log likelihood."""
    before = -np.inf
    for _ in range(_ROUNDS):
        logs = np.log(mixture.weights) + np.stack(
            [_log_gaussian(draws, *pair) for pair in zip(*mixture[1:], strict=True)], axis=1
        )
        top = logs.max(axis=1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(logs - top).sum(axis=1))
        likelihood = float(total.sum())
        if likelihood - before < 1e-4:
            break
        before = likelihood
        share = np.exp(logs - total[:, None])
        count = share.sum(axis=0) + 1e-12
        means = share.T @ draws / count[:, None]
        covariances = np.stack(
            [
                (share[:, m, None] * (draws - mean)).T @ (draws - mean) / count[m] + ridge
                for m, mean in enumerate(means)
            ]
        )
        mixture = Mixture(count / count.sum(), means, covariances)
    return mixture, before


def separated(mixture: Mixture) -> bool:
    """Whether all modes weigh at least 0.2 and each two are apart by 2.5 standard deviations."""
    if mixture.weights.min() < WEIGHT:
        return False
    for a in range(mixture.weights.size):
        for b in range(a):
            line = mixture.means[a] - mixture.means[b]
            length = line @ line
            if length == 0:
                return False
            along = [line @ mixture.covariances[m] @ line for m in (a, b)]
            if np.sqrt(2) * length < _APART * np.sqrt(sum(along)):
                return False
    return True


def mixture_of(
    draws: Float[np.ndarray, "draw entry"], most: int, generator: np.random.Generator
) -> Mixture:
    """The mixture of the largest number of separated modes, `most` of them at most."""
    mean, covariance = draws.mean(axis=0), np.atleast_2d(np.cov(draws.T))
    one = Mixture(np.ones(1), mean[None], covariance[None])
    ridge = 1e-6 * np.diag(np.diagonal(covariance))
    white = (draws - mean) / np.sqrt(np.diagonal(covariance))
    for modes in range(most, 1, -1):
        found = []
        for _ in range(_STARTS):
            # Far from those chosen so far, each in turn.
            chosen = [int(generator.integers(len(draws)))]
            for _ in range(modes - 1):
                gaps = [np.sum((white - white[c]) ** 2, axis=1) for c in chosen]
                nearest = np.min(gaps, axis=0)
                chosen.append(int(generator.choice(len(draws), p=nearest / nearest.sum())))
            begin = Mixture(
                np.full(modes, 1 / modes),
                draws[chosen],
                np.repeat(covariance[None] / modes**2, modes, axis=0),
            )
            found.append(_maximised(draws, begin, ridge))
        best = max(found, key=lambda pair: pair[1])[0]
        if separated(best):
            return best
    return one


def matched(
    mixtures: list[Mixture], scale: Float[np.ndarray, "entry"]
) -> tuple[list[np.ndarray], int]:
    """The common mode each mode of each shard belongs to, and the number of common modes.

    A mode is a point in all parameters together: modes of a shard are assigned one to one so that
    the sum of their distances is smallest.
    """
    # Not at the top: SciPy takes long to import.
    from scipy.optimize import linear_sum_assignment

    richest = max(mixtures, key=lambda m: m.weights.size)
    centres = richest.means / scale
    assigned: list[np.ndarray] = []
    for _ in range(10):
        assigned = []
        for mixture in mixtures:
            gaps = (mixture.means / scale)[:, None] - centres
            assigned.append(linear_sum_assignment(np.sum(gaps**2, axis=2))[1])
        pooled = [[] for _ in centres]
        for mixture, modes in zip(mixtures, assigned, strict=True):
            for mean, mode in zip(mixture.means, modes, strict=True):
                pooled[mode].append(mean / scale)
        moved = np.stack(
            [np.mean(p, axis=0) if p else c for p, c in zip(pooled, centres, strict=True)]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return assigned, len(centres)


def _log_product(means, precisions) -> tuple[np.ndarray, np.ndarray, float]:
    """Precision, precision times mean and ln of the integral of a product of Gaussians."""
    information = precisions.sum(axis=0)
    each = np.einsum("kef,kf->ke", precisions, means)
    vector = each.sum(axis=0)
    log_dets = np.linalg.slogdet(precisions)[1].sum() - np.linalg.slogdet(information)[1]
    squares = np.sum(means * each) - vector @ np.linalg.solve(information, vector)
    constant = (len(means) - 1) * means.shape[1] * np.log(2 * np.pi)
    return information, vector, 0.5 * float(log_dets - squares - constant)


class MultimodalConsensus(AbstractCombiner):
    """Product of mixtures of Gaussians, mode by mode.

    Each shard is described by up to `modes` Gaussians; those of different shards are matched in all
    parameters jointly. A common mode is the product of its Gaussians and weighs as much as that
    product integrates to, weights included; products across different modes are left out, which is
    right when the modes do not overlap. A mode in fewer than half of the shards is dropped; a shard
    without a mode has it with the mean shape and the weight of less than one draw.
    """

    of_moments: ClassVar[bool] = False
    modes: int = eqx.field(static=True, default=2)
    draws: int = eqx.field(static=True, default=4000)

    def __check_init__(self):
        if self.modes < 1 or self.draws < 1:
            raise ModelError(f"modes = {self.modes}, draws = {self.draws}; at least 1 of each")

    def __call__(self, shards, key):
        generator = generator_of(key)
        mixtures = [mixture_of(draws, self.modes, generator) for draws in shards.draws]
        covariances = np.concatenate([m.covariances for m in mixtures])
        scale = np.sqrt(np.mean(np.diagonal(covariances, axis1=1, axis2=2), axis=0))
        assigned, count = matched(mixtures, scale)
        total, log, products = len(mixtures), [], []
        for mode in range(count):
            having = [k for k, modes in enumerate(assigned) if mode in modes]
            if 2 * len(having) < total:
                log.append(f"mode {mode} dropped: {len(having)} of {total} shards have it")
                continue
            at = {k: int(np.flatnonzero(assigned[k] == mode)[0]) for k in having}
            means = np.stack([mixtures[k].means[at[k]] for k in having])
            covs = np.stack([mixtures[k].covariances[at[k]] for k in having])
            weights = [np.log(mixtures[k].weights[at[k]]) for k in having]
            missing = total - len(having)
            if missing:
                # In the place and shape that the others give it.
                means = np.concatenate([means, np.repeat(means.mean(0)[None], missing, 0)])
                covs = np.concatenate([covs, np.repeat(covs.mean(0)[None], missing, 0)])
                weights += [-np.log(shards.draws.shape[1] + 1.0)] * missing
            information, vector, product = _log_product(means, precisions_of(covs))
            products.append((information, vector, product + float(np.sum(weights)), len(having)))
        logs = np.array([product[2] for product in products])
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        numbers = generator.multinomial(self.draws, weights)
        parts = [
            gaussian(product[0], product[1], int(n), generator)
            for product, n in zip(products, numbers, strict=True)
        ]
        log.extend(
            f"a mode of {product[3]} of {total} shards with weight {weight:.3g}"
            for product, weight in zip(products, weights, strict=True)
        )
        draws = generator.permutation(np.concatenate(parts))
        return Combined(draws, shards.numbers, (), tuple(log))
