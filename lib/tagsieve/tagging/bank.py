"""A bank of labelled queries, and the tagger that is fitted to it.

The model has two stages. Heads: ridge regression from the poolings of a query to every tag that
has at least `MIN_EXAMPLES` examples. Judge: one logistic regression, over products of pairs of
features, that looks at the heads' best candidates and decides each with what else is known of the
pair: how many of the tag's words the query holds, the cosine of query and tag phrase, the votes of
the nearest examples, how common the tag is. It is fitted on leave-one-out scores of the heads, so
it sees them as wrong as they are on new queries. A bank holds vectors, tags and weights, no text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagsieve.engines.encoders import Array, Encoded, SentenceEncoder
from tagsieve.errors import UsageError

MIN_EXAMPLES = 3
"""A tag with fewer examples has no head; it is only copied from a very near example."""

CANDIDATES = 40
RIDGE = 0.25
NEIGHBOURS = 20
NEIGHBOUR_SHARPNESS = 15.0
COPY_COSINE = 0.9
"""Cosine from which on an example's rare tags are copied."""

FEATURES = ("head", "words", "phrase", "votes", "examples", "best", "total")
_MODEL, _EXAMPLES, _CARD = "model.npz", "examples.npz", "card.json"


@dataclass(frozen=True)
class Card:
    """What a bank is, for a person."""

    name: str
    sources: list[str]
    licence: str
    examples: int
    tags: int
    encoder: str


@dataclass(frozen=True)
class Prediction:
    """The tags of one query with their scores (0 to 1), best first; empty: the tagger abstains."""

    tags: list[str]
    scores: list[float]


class WordOverlap:
    """How much of each tag's words a query holds, by word pieces with their stems as one.

    Weights are the pieces' inverse document frequencies among the bank's queries, as shares of the
    tag's whole: 1 means that all of the tag's words are there.
    """

    def __init__(self, encoder: SentenceEncoder, tags: Sequence[str], idf: Array | None) -> None:
        self._group = _stem_groups(encoder.vocabulary)
        pieces = [
            np.unique(self._group[np.array(ids[1:-1], dtype=np.int64)])
            for ids in encoder.tokens(list(tags))
        ]
        used = np.unique(np.concatenate(pieces)) if pieces else np.empty(0, dtype=np.int64)
        self._column = np.full(self._group.max() + 1, -1, dtype=np.int64)
        self._column[used] = np.arange(len(used))
        self._pieces = [self._column[p] for p in pieces]
        self.idf = np.ones(len(used), dtype=np.float32) if idf is None else idf
        self._weights = np.zeros((len(used), len(pieces)), dtype=np.float32)
        for tag, columns in enumerate(self._pieces):
            self._weights[columns, tag] = self.idf[columns]
        self._weights /= np.maximum(self._weights.sum(0, keepdims=True), 1e-9)

    def held(self, tokens: Sequence[Sequence[int]]) -> Array:
        """Which of the tags' pieces each query holds: 0 or 1, [queries, pieces]."""
        held = np.zeros((len(tokens), len(self.idf)), dtype=np.float32)
        rows = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])
        columns = self._column[self._group[np.concatenate([np.asarray(i) for i in tokens])]]
        held[rows[columns >= 0], columns[columns >= 0]] = 1.0
        return held

    def shares(self, tokens: Sequence[Sequence[int]]) -> Array:
        """Share of each tag's words in each query: [queries, tags]."""
        return np.asarray(self.held(tokens) @ self._weights)


def _stem_groups(vocabulary: Sequence[str]) -> Array:
    """A number for each word piece; whole words with one Porter stem share it."""
    from nltk.stem.porter import PorterStemmer

    stem = PorterStemmer().stem
    numbers: dict[str, int] = {}
    whole = [piece if piece.startswith(("##", "[")) else stem(piece) for piece in vocabulary]
    return np.array([numbers.setdefault(piece, len(numbers)) for piece in whole], dtype=np.int64)


class Bank:
    """Labelled examples with the fitted model; `predict` tags queries."""

    def __init__(self, encoder: SentenceEncoder, arrays: dict[str, Array], card: Card) -> None:
        self.card = card
        self._arrays = arrays
        self.tags: list[str] = arrays["tags"].tolist()
        self._mean, self._scale = arrays["mean"], arrays["scale"]
        self._heads = arrays["heads"].astype(np.float32)
        self._phrases = encoder.encode(self.tags)
        self._overlap = WordOverlap(encoder, self.tags, arrays["idf"])
        self._log_count = np.log(arrays["counts"]).astype(np.float32)
        self._vectors = arrays["vectors"].astype(np.float32)
        self._labels = _Labels(arrays["label_tags"].tolist(), arrays["starts"], arrays["labels"])
        self._votes = self._labels.matrix(self.tags)

    # --- fitting -------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        encoder: SentenceEncoder,
        encoded: Encoded,
        tag_lists: Sequence[Sequence[str]],
        card: Card,
    ) -> Bank:
        """Fit to examples: `encoded` queries and their (normalised) tags. Deterministic.

        Memory grows with examples x tags with a head (float32), and with the square of the width of
        the poolings. Raises UsageError when no tag has `MIN_EXAMPLES` examples.
        """
        from sklearn.linear_model import LogisticRegression

        lists = [list(dict.fromkeys(tags)) for tags in tag_lists]
        counts = Counter(tag for tags in lists for tag in tags)
        tags = sorted(tag for tag, count in counts.items() if count >= MIN_EXAMPLES)
        if not tags:
            raise UsageError(
                f"bank: none of the {len(counts)} tags has {MIN_EXAMPLES} examples; add examples"
            )
        labels = _Labels.of(lists)
        mean, scale = _standard(encoded.poolings)
        wide = _standardise(encoded.poolings, mean, scale, encoder.dimension)
        truth = labels.matrix(tags)
        heads, scores = _ridge(wide, truth)
        overlap = WordOverlap(encoder, tags, None)
        document_frequency = overlap.held(encoded.tokens).sum(0)
        idf = np.log((len(lists) + 1) / (document_frequency + 1)).astype(np.float32)
        arrays = {
            "tags": np.array(tags),
            "counts": np.array([counts[tag] for tag in tags]),
            "mean": mean,
            "scale": scale,
            "heads": heads.astype(np.float16),
            "idf": idf,
            "vectors": encoded.vectors.astype(np.float16),
            **labels.arrays(),
        }
        bank = cls(encoder, arrays, card)
        rows, columns, features = bank._candidates(encoded, scores, alone=False)
        low, high = features.mean(0), features.std(0) + 1e-6
        pairs = _products((features - low) / high)
        middle, spread = pairs.mean(0), pairs.std(0) + 1e-6
        judge = LogisticRegression(C=0.1, max_iter=300)
        judge.fit((pairs - middle) / spread, truth[rows, columns])
        arrays |= {
            "feature_mean": low,
            "feature_scale": high,
            "judge": np.concatenate([judge.intercept_, judge.coef_[0]]).astype(np.float32),
            "pair_mean": middle,
            "pair_scale": spread,
        }
        chances = bank._judge(features)
        arrays["threshold"] = np.array(_best_threshold(chances, truth[rows, columns], truth.sum()))
        return bank

    # --- use -----------------------------------------------------------------------------------

    def predict(self, encoded: Encoded) -> list[Prediction]:
        """Tags of each query; rare tags of examples at cosine `COPY_COSINE` or more come last."""
        wide = _standardise(encoded.poolings, self._mean, self._scale, encoded.vectors.shape[1])
        rows, columns, features = self._candidates(encoded, wide @ self._heads, alone=True)
        chances = self._judge(features)
        found: list[list[tuple[float, str]]] = [[] for _ in range(len(encoded.vectors))]
        sure = chances >= self._arrays["threshold"]
        for row, column, chance in zip(rows[sure], columns[sure], chances[sure], strict=True):
            found[row].append((float(chance), self.tags[column]))
        near = encoded.vectors @ self._vectors.T
        with_head = set(self.tags)
        for row in np.flatnonzero(near.max(1) >= COPY_COSINE):
            example = int(near[row].argmax())
            found[row] += [
                (float(near[row, example]) - 1.0, tag)  # after the judged ones
                for tag in self._labels.of_example(example)
                if tag not in with_head
            ]
        predictions = []
        for pairs in found:
            ordered = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
            scores = [chance if chance > 0 else chance + 1.0 for chance, _ in ordered]
            predictions.append(Prediction([tag for _, tag in ordered], scores))
        return predictions

    def _candidates(
        self, encoded: Encoded, scores: Array, alone: bool
    ) -> tuple[Array, Array, Array]:
        """Rows, tags and features of the best candidates of each query.

        `alone`: the queries are new; else they are the bank's own, and do not vote for themselves.
        """
        words = self._overlap.shares(encoded.tokens)
        number = min(CANDIDATES, scores.shape[1])
        best = np.argpartition(-(scores + 0.05 * words), number - 1, axis=1)[:, :number]
        rows = np.repeat(np.arange(len(scores)), number)
        columns = best.ravel()
        phrase = encoded.vectors @ self._phrases.T
        votes = self._vote(encoded.vectors, alone)
        ranked = -np.sort(-scores, axis=1)[:, :NEIGHBOURS]
        features = np.stack(
            [
                scores[rows, columns],
                words[rows, columns],
                phrase[rows, columns],
                votes[rows, columns],
                self._log_count[columns],
                ranked[rows, 0],
                np.maximum(ranked, 0).sum(1)[rows],
            ],
            axis=1,
        )
        return rows, columns, features

    def _vote(self, vectors: Array, alone: bool) -> Array:
        """Weighted share of the nearest examples that have each tag: [queries, tags]."""
        near = vectors @ self._vectors.T
        if not alone:
            np.fill_diagonal(near, -1.0)
        number = min(NEIGHBOURS, near.shape[1])
        nearest = np.argpartition(-near, number - 1, axis=1)[:, :number]
        cosine = np.take_along_axis(near, nearest, axis=1)
        weight = np.exp(NEIGHBOUR_SHARPNESS * (cosine - cosine.max(1, keepdims=True)))
        weight /= weight.sum(1, keepdims=True)
        votes = np.zeros((len(vectors), len(self.tags)), dtype=np.float32)
        for place in range(number):
            votes += weight[:, place : place + 1] * self._votes[nearest[:, place]]
        return votes

    def _judge(self, features: Array) -> Array:
        """The chance that each candidate is a tag of its query."""
        a = self._arrays
        pairs = _products((features - a["feature_mean"]) / a["feature_scale"])
        weights = a["judge"]
        logit = (pairs - a["pair_mean"]) / a["pair_scale"] @ weights[1:] + weights[0]
        return np.asarray(1.0 / (1.0 + np.exp(-logit)))

    # --- files ---------------------------------------------------------------------------------

    def save(self, folder: str) -> None:
        """Write the bank as a folder of NumPy arrays and a card."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(target / _MODEL, **self._arrays)
        (target / _CARD).write_text(json.dumps(asdict(self.card), indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: str, encoder: SentenceEncoder) -> Bank:
        """Read a bank; UsageError where there is none, or it was made with another encoder."""
        card = read_card(folder)
        with np.load(Path(folder) / _MODEL) as stored:
            return cls(encoder, dict(stored), card)


def read_card(folder: str) -> Card:
    """The card of the bank in a folder; UsageError where there is none."""
    try:
        return Card(**json.loads((Path(folder) / _CARD).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"tag.bank={folder!r} is no bank; use builtin, or make one with `tagsieve bank`"
        ) from error


def bank_digest(folder: str) -> str:
    """16 hex digits over what decides a bank's answers."""
    return hashlib.sha256((Path(folder) / _MODEL).read_bytes()).hexdigest()[:16]


class _Labels:
    """The tags of each example, as numbers into one list of names (compressed rows)."""

    def __init__(self, names: list[str], starts: Array, labels: Array) -> None:
        self._names, self._starts, self._numbers = names, starts, labels

    @classmethod
    def of(cls, lists: Sequence[Sequence[str]]) -> _Labels:
        names = sorted({tag for tags in lists for tag in tags})
        index = {tag: number for number, tag in enumerate(names)}
        starts = np.cumsum([0, *map(len, lists)])
        numbers = np.array([index[tag] for tags in lists for tag in tags], dtype=np.int32)
        return cls(names, starts, numbers)

    def arrays(self) -> dict[str, Array]:
        return {
            "label_tags": np.array(self._names),
            "starts": self._starts,
            "labels": self._numbers,
        }

    def of_example(self, row: int) -> list[str]:
        """The tags of one example."""
        numbers = self._numbers[self._starts[row] : self._starts[row + 1]]
        return [self._names[number] for number in numbers]

    def matrix(self, tags: Sequence[str]) -> Array:
        """Which of `tags` each example has: 0 or 1, float32 [examples, tags]."""
        column = np.full(len(self._names), -1)
        index = {tag: number for number, tag in enumerate(tags)}
        for number, name in enumerate(self._names):
            column[number] = index.get(name, -1)
        rows = np.repeat(np.arange(len(self._starts) - 1), np.diff(self._starts))
        columns = column[self._numbers]
        matrix = np.zeros((len(self._starts) - 1, len(tags)), dtype=np.float32)
        matrix[rows[columns >= 0], columns[columns >= 0]] = 1.0
        return matrix


def _standard(poolings: Array) -> tuple[Array, Array]:
    return poolings.mean(0), poolings.std(0) + 1e-6


def _standardise(poolings: Array, mean: Array, scale: Array, dimension: int) -> Array:
    """Standardised columns, then each pooling scaled so that all count alike and a row is 1."""
    blocks = ((poolings - mean) / scale).reshape(len(poolings), -1, dimension)
    blocks /= np.linalg.norm(blocks, axis=2, keepdims=True) + 1e-9
    return np.asarray(blocks.reshape(len(poolings), -1) / np.sqrt(blocks.shape[1]))


def _ridge(wide: Array, truth: Array) -> tuple[Array, Array]:
    """Ridge heads [width, tags], and each example's score by the heads fitted without it."""
    import torch

    rows, goal = torch.from_numpy(wide).double(), torch.from_numpy(truth).double()
    gram = rows.T @ rows
    gram.diagonal().add_(RIDGE)
    root = torch.linalg.cholesky(gram)
    heads = torch.cholesky_solve(rows.T @ goal, root)
    leverage = torch.linalg.solve_triangular(root, rows.T, upper=False).square().sum(0)[:, None]
    left_out = (rows @ heads - leverage * goal) / (1 - leverage)
    return heads.float().numpy(), left_out.float().numpy()


def _products(features: Array) -> Array:
    """The features, their squares and their products: [n, f] -> [n, f (f + 3) / 2]."""
    first, second = np.triu_indices(features.shape[1])
    return np.concatenate([features, features[:, first] * features[:, second]], axis=1)


def _best_threshold(chances: Array, truth: Array, total: float) -> float:
    """The threshold with the best micro F1, when `total` tags are to be found."""
    order = np.argsort(-chances)
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + total)
    return float(chances[order][f1.argmax()])
