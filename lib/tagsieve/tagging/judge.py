"""The judge of (query, tag) candidates: a logistic regression over products of pairs of features,
and the thresholds of its chances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from tagsieve.engines.encoders import Array

PENALTY = 10.0
"""Ridge penalty of the regression's weights, over all candidates."""

FOLDS = 5
PRIORS = (10.0, 30.0, 100.0, 1000.0)
"""Strengths of the pull of a tag's own threshold towards the common one, in the unit of the
candidates' variance p (1 - p); the best one is chosen on folds."""


@dataclass(frozen=True)
class Judge:
    """The chance of a candidate from its features: float32 [candidates, features]."""

    low: Array
    high: Array
    mean: Array
    scale: Array
    weights: Array

    @classmethod
    def fit(cls, features: Array, truth: Array) -> Judge:
        """Fit to candidates with known truth (0 or 1). Deterministic."""
        mean, scale = features.mean(0), features.std(0) + 1e-6
        pairs = _products((features - mean) / scale)
        middle, spread = pairs.mean(0), pairs.std(0) + 1e-6
        fitted = _logistic((pairs - middle) / spread, truth)
        # The second standardisation is folded into the weights.
        slopes = fitted[1:] / spread
        weights = np.concatenate([[fitted[0] - slopes @ middle], slopes])
        low, high = features.min(0), features.max(0)
        return cls(low, high, mean, scale, weights.astype(np.float32))

    @classmethod
    def of(cls, arrays: Mapping[str, Array], name: str) -> Judge:
        """The judge that `arrays(name)` stored."""
        return cls(*(arrays[f"{name}_{field.name}"] for field in fields(cls)))

    def arrays(self, name: str) -> dict[str, Array]:
        """What a file holds of it."""
        return {f"{name}_{field.name}": getattr(self, field.name) for field in fields(self)}

    def chances(self, features: Array) -> Array:
        """The chance of each candidate; it depends on no other candidate."""
        # Outside of what was seen, products of features say anything.
        inside = np.clip(features, self.low, self.high)
        pairs = _products((inside - self.mean) / self.scale)
        # A sum per row, not a matrix product, whose last bits depend on the number of rows.
        return _sigmoid((pairs * self.weights[1:]).sum(1) + self.weights[0])


def tag_thresholds(
    chances: Array, truth: Array, tags: Array, folds: Array, number: int, total: float
) -> Array:
    """A threshold for each of `number` tags: float32.

    A tag's log-odds are moved by what its candidates lack or have too much, pulled towards no move
    (one Newton step); how strongly is chosen on folds, and so is the common threshold, for the best
    micro F1 when `total` tags are to be found.
    """
    best = (-1.0, 0.5, PRIORS[-1])
    for prior in PRIORS:
        moved = _logit(chances)
        for fold in range(FOLDS):
            inside = folds == fold
            others = _moves(chances[~inside], truth[~inside], tags[~inside], number, prior)
            moved[inside] += others[tags[inside]]
        f1, threshold = best_threshold(_sigmoid(moved), truth, total)
        best = max(best, (f1, threshold, prior))
    _, common, prior = best
    moves = _moves(chances, truth, tags, number, prior)
    return np.asarray(_sigmoid(_logit(np.array(common)) - moves), dtype=np.float32)


def best_threshold(
    chances: Array, truth: Array, total: float, hits: float = 0.0, taken: float = 0.0
) -> tuple[float, float]:
    """The best micro F1 and its threshold (at most 0.5) when `total` tags are to be found, of which
    `taken` other predictions have found `hits`.

    For calibrated chances the best one is half of the best F1; a higher one comes only from a bank
    so small that nothing lies between right and wrong.
    """
    order = np.argsort(-chances, kind="stable")
    found = hits + np.cumsum(truth[order])
    f1 = 2 * found / (taken + np.arange(1, len(order) + 1) + total)
    best = int(f1.argmax())
    return float(f1[best]), min(float(chances[order][best]), 0.5)


def _moves(chances: Array, truth: Array, tags: Array, number: int, prior: float) -> Array:
    lack = np.bincount(tags, weights=truth - chances, minlength=number)
    variance = np.bincount(tags, weights=chances * (1 - chances), minlength=number)
    return np.asarray(lack / (variance + prior))


def _products(features: Array) -> Array:
    """The features, their squares and their products: [n, f] -> [n, f (f + 3) / 2]."""
    first, second = np.triu_indices(features.shape[1])
    return np.concatenate([features, features[:, first] * features[:, second]], axis=1)


def _logistic(rows: Array, truth: Array) -> Array:
    """Intercept and weights of a ridge logistic regression, by Newton steps with halving."""
    x = np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
    penalty = np.full(x.shape[1], PENALTY)
    penalty[0] = 1e-3
    weights = np.zeros(x.shape[1])
    loss = _loss(x, truth, weights, penalty)
    for _ in range(30):
        chance = _sigmoid(x @ weights)
        gradient = x.T @ (chance - truth) + penalty * weights
        hessian = x.T @ (x * (chance * (1 - chance))[:, None]) + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        before = loss
        for halving in range(12):
            tried = weights - step * 0.5**halving
            loss = _loss(x, truth, tried, penalty)
            if loss <= before:
                break
        weights = tried
        if before - loss < 1e-3:
            break
    return weights


def _loss(x: Array, truth: Array, weights: Array, penalty: Array) -> float:
    logits = x @ weights
    return float((np.logaddexp(0, logits) - truth * logits).sum() + penalty @ weights**2 / 2)


def _sigmoid(logits: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30, 30))))


def _logit(chances: Array) -> Array:
    inside = np.clip(chances, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside) - np.log1p(-inside))
