"""A bank of labelled queries, and the tagger that is fitted to it.

Heads: ridge regression from a query's poolings and words to every tag that has at least
`MIN_EXAMPLES` examples. Judge: one logistic regression, over products of pairs of features, that
looks at the heads' best candidates and decides each with what else is known of the pair: how many
of the tag's words the query holds, the cosine of query and tag phrase, how common the tag is, how
sure the heads are of others. It is fitted on leave-one-out scores of the heads, so it sees them as
wrong as they are on new queries; each tag has its own threshold. A second, smaller judge decides
which rare tags of the nearest examples are copied. A bank holds vectors, tags and weights, no text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tagsieve.engines.encoders import Array, Encoded, SentenceEncoder
from tagsieve.errors import UsageError
from tagsieve.tagging.heads import from_few_bits, in_few_bits, ridge
from tagsieve.tagging.judge import FOLDS, Judge, best_threshold, tag_thresholds
from tagsieve.tagging.words import KnownWords, TagWords, sparse_product, stem_groups

if TYPE_CHECKING:
    import torch

MIN_EXAMPLES = 3
"""A tag with fewer examples is rare: it has no head, and is only copied from near examples."""

CANDIDATES = 32
"""Tags of a query that the judge looks at."""

WORD_SHARE = 0.25
"""Weight of the words beside the poolings in what the heads see."""

COUNT = 4
"""Which feature of the judge is the logarithm of the tag's examples."""

TOTAL_OF = 20
CHUNK = 256
"""Queries of one matrix product: always the same shape, so that a query's tags do not depend on
the queries beside it."""

NEAREST = 16
"""Examples whose rare tags are candidates."""

COPY_COSINE = 0.95
"""Cosine from which on an example is the query itself: its rare tags are copied unjudged."""

_MODEL, _CARD = "model.npz", "card.json"


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


@dataclass(frozen=True)
class _Candidates:
    """Pairs of a query and a tag, as numbers, with what their judge sees of them."""

    rows: Array
    tags: Array
    features: Array

    def where(self, chosen: Array) -> _Candidates:
        """The chosen pairs."""
        return _Candidates(self.rows[chosen], self.tags[chosen], self.features[chosen])


class Bank:
    """Labelled examples with the fitted model; `predict` tags queries."""

    def __init__(self, encoder: SentenceEncoder, arrays: dict[str, Array], card: Card) -> None:
        import torch

        self.card = card
        self._arrays = arrays
        self._labels = _Labels(arrays["names"].tolist(), arrays["starts"], arrays["labels"])
        self._common = np.flatnonzero(self._labels.counts >= MIN_EXAMPLES)
        self.tags: list[str] = arrays["names"][self._common].tolist()
        self._known = KnownWords(arrays["groups"], arrays["known"], arrays["known_weights"])
        self._tag_words = TagWords(
            arrays["groups"], encoder.tokens(self._labels.names), arrays["idf"]
        )
        self._word_shares = torch.from_numpy(self._tag_words.table(self._common))
        self._log_count = np.log(self._labels.counts[self._common]).astype(np.float32)
        self._length = np.array([len(tag.split()) for tag in self.tags], dtype=np.float32)
        self._rare = self._labels.padded(self._labels.counts <= MIN_EXAMPLES)
        # The dense products run in the encoder's precision.
        kind = encoder.torch_dtype
        self._phrases = torch.from_numpy(from_few_bits(arrays, "phrases").T.copy()).to(kind)
        self._examples = torch.from_numpy(from_few_bits(arrays, "vectors").T.copy()).to(kind)
        if "heads" in arrays:
            self._heads = torch.from_numpy(from_few_bits(arrays, "heads")).to(kind)
            self._word_heads = torch.from_numpy(from_few_bits(arrays, "word_heads"))

    @classmethod
    def fit(
        cls,
        encoder: SentenceEncoder,
        encoded: Encoded,
        tag_lists: Sequence[Sequence[str]],
        card: Card,
    ) -> Bank:
        """Fit to examples: `encoded` queries and their (normalised) tags. Deterministic.

        Memory grows with examples x tags with a head and examples x what the heads see (float32),
        and with the square of the smaller of examples and what the heads see (float64). Raises
        UsageError when no tag has more than `MIN_EXAMPLES` examples: the judge would learn nothing.
        """
        labels = _Labels.of([list(dict.fromkeys(tags)) for tags in tag_lists])
        common = np.flatnonzero(labels.counts >= MIN_EXAMPLES)
        if labels.counts.max(initial=0) <= MIN_EXAMPLES:
            raise UsageError(
                f"bank: none of the {len(labels.names)} tags has {MIN_EXAMPLES + 1} examples; "
                "add examples"
            )
        groups = stem_groups(encoder.vocabulary)
        known = KnownWords.of(groups, encoded.tokens)
        tag_words = TagWords(groups, encoder.tokens(labels.names), None)
        seen = np.bincount(tag_words.held(encoded.tokens)[1], minlength=tag_words.number)
        phrases = encoder.encode([labels.names[tag] for tag in common])
        arrays = {
            **labels.arrays(),
            "groups": groups,
            "known": known.known,
            "known_weights": known.weights,
            "idf": np.log((len(tag_lists) + 1) / (seen + 1)).astype(np.float32),
            "mean": encoded.poolings.mean(0),
            "scale": encoded.poolings.std(0) + 1e-6,
            **in_few_bits("phrases", phrases, steps=12),
            **in_few_bits("vectors", encoded.vectors, steps=12),
        }
        bank = cls(encoder, arrays, card)
        truth = labels.matrix(common)
        poolings, words = bank._poolings(encoded), bank._dense_words(encoded)
        heads, left_out = ridge(np.concatenate([poolings, words], axis=1), truth)
        arrays |= in_few_bits("heads", heads[: poolings.shape[1]], steps=3)
        arrays |= in_few_bits("word_heads", heads[poolings.shape[1] :], steps=3)
        arrays |= bank._fit_judges(encoded, left_out, truth)
        return cls(encoder, arrays, card)

    def _fit_judges(self, encoded: Encoded, left_out: Array, truth: Array) -> dict[str, Array]:
        """Both judges with their thresholds, from what is known of each example by the others."""
        likely = self._likely(encoded, left_out)
        right = truth[likely.rows, likely.tags]
        # Examples are counted without the query itself, as they will be for new queries: else each
        # tag with just enough examples would seem to be as frequent as its examples are many.
        others = truth.sum(0)[likely.tags] - right
        likely.features[:, COUNT] = np.log(others)
        likely, right = likely.where(others >= MIN_EXAMPLES), right[others >= MIN_EXAMPLES]
        total = float(sum(count for count in truth.sum(0) if count > MIN_EXAMPLES))
        judge = Judge.fit(likely.features, right)
        chances = judge.chances(likely.features)
        thresholds = tag_thresholds(
            chances, right, likely.tags, likely.rows % FOLDS, len(self.tags), total
        )
        taken = chances >= thresholds[likely.tags]
        arrays = judge.arrays("judge") | {"thresholds": thresholds}
        return arrays | self._fit_rare(encoded, float(right[taken].sum()), float(taken.sum()))

    def _fit_rare(self, encoded: Encoded, hits: float, taken: float) -> dict[str, Array]:
        """The judge of rare tags, when the other one takes `taken` tags and is right in `hits`."""
        near = self._near_rare_of_examples(encoded)
        right = self._labels.has(near.rows, near.tags).astype(np.float32)
        others = self._labels.counts[near.tags] - right
        rare = (others >= 1) & (others < MIN_EXAMPLES)
        features, right = near.features[rare], right[rare]
        threshold = 1.0
        if right.sum():
            judge = Judge.fit(features, right)
            total = float(len(self._labels.numbers))
            _, threshold = best_threshold(judge.chances(features), right, total, hits, taken)
        else:  # nothing to learn from: only repeated queries have their rare tags copied
            judge = Judge.fit(np.zeros((1, features.shape[1]), np.float32), np.zeros(1))
        return judge.arrays("rare") | {"rare_threshold": np.array(threshold)}

    def predict(self, encoded: Encoded) -> list[Prediction]:
        """Tags of each query, best first."""
        found: list[list[tuple[float, str]]] = [[] for _ in encoded.tokens]
        judge, rare_judge = Judge.of(self._arrays, "judge"), Judge.of(self._arrays, "rare")
        names = self._labels.names
        for start in range(0, len(encoded.tokens), CHUNK):
            chunk = encoded.slice(start, start + CHUNK)
            likely = self._likely(chunk, self._scores(chunk))
            chances = judge.chances(likely.features)
            sure = chances >= self._arrays["thresholds"][likely.tags]
            for row, tag, chance in _triples(likely, chances, sure):
                found[start + row].append((chance, self.tags[tag]))
            near = self._near_rare(chunk)
            chances = rare_judge.chances(near.features)
            same = near.features[:, 0] >= COPY_COSINE
            sure = (chances >= self._arrays["rare_threshold"]) | same
            sure &= self._labels.counts[near.tags] < MIN_EXAMPLES
            for row, tag, chance in _triples(near, chances, sure):
                found[start + row].append((chance, names[tag]))
        return [_prediction(pairs) for pairs in found]

    @property
    def mean_tags(self) -> float:
        """Tags per example."""
        return len(self._labels.numbers) / self._labels.examples

    def _scores(self, encoded: Encoded) -> Array:
        """The heads' scores: float32 [queries, tags with a head]."""
        dense = self._product(self._poolings(encoded), self._heads)
        rows, columns, values = self._known.rows(encoded.tokens)
        values *= np.float32(np.sqrt(WORD_SHARE))
        words = sparse_product(rows, columns, values, len(encoded.tokens), self._word_heads)
        return dense + words

    def _poolings(self, encoded: Encoded) -> Array:
        """Standardised poolings, each of equal length: float32 [queries, width]."""
        standard = (encoded.poolings - self._arrays["mean"]) / self._arrays["scale"]
        blocks = standard.reshape(len(standard), -1, encoded.vectors.shape[1])
        blocks /= np.linalg.norm(blocks, axis=2, keepdims=True) + 1e-9
        return blocks.reshape(len(standard), -1) * np.float32(
            np.sqrt((1 - WORD_SHARE) / blocks.shape[1])
        )

    def _dense_words(self, encoded: Encoded) -> Array:
        """What `_scores` sees of the words, as a dense matrix: float32 [queries, words]."""
        rows, columns, values = self._known.rows(encoded.tokens)
        dense = np.zeros((len(encoded.tokens), len(self._known.known)), dtype=np.float32)
        dense[rows, columns] = values * np.float32(np.sqrt(WORD_SHARE))
        return dense

    def _product(self, rows: Array, matrix: torch.Tensor) -> Array:
        """`rows @ matrix` in float32, in products of `CHUNK` rows, the last one filled up."""
        import torch

        parts = []
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            full = np.zeros((CHUNK, rows.shape[1]), dtype=np.float32)
            full[: len(part)] = part
            product = torch.from_numpy(full).to(matrix.dtype) @ matrix
            parts.append(product[: len(part)].float().numpy())
        return np.concatenate(parts)

    def _likely(self, encoded: Encoded, scores: Array) -> _Candidates:
        """The `CANDIDATES` best tags of each query by the heads' scores."""
        held = self._tag_words.held(encoded.tokens)
        words = sparse_product(*held, None, len(scores), self._word_shares)
        phrase = self._product(encoded.vectors, self._phrases)
        best = _largest(scores + np.float32(0.05) * words, CANDIDATES)
        rows, tags = np.repeat(np.arange(len(scores)), best.shape[1]), best.ravel()
        own = np.take_along_axis(scores, best, axis=1)
        top = -np.sort(-own, axis=1)[:, :TOTAL_OF]
        tokens = np.array([len(ids) for ids in encoded.tokens], dtype=np.float32)
        features = [
            own.ravel(),
            np.log(np.maximum(own, 1e-3)).ravel(),
            words[rows, tags],
            phrase[rows, tags],
            self._log_count[tags],
            self._length[tags],
            top[rows, 0],
            np.maximum(top, 0).sum(1)[rows],
            np.log(tokens)[rows],
        ]
        return _Candidates(rows, tags, np.stack(features, axis=1))

    def _near_rare_of_examples(self, encoded: Encoded) -> _Candidates:
        """`_near_rare` of the bank's own examples, chunk by chunk, none an example for itself."""
        starts = range(0, len(encoded.tokens), CHUNK)
        parts = [self._near_rare(encoded.slice(start, start + CHUNK), start) for start in starts]
        return _Candidates(
            np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part.tags for part in parts]),
            np.concatenate([part.features for part in parts]),
        )

    def _near_rare(self, encoded: Encoded, start: int | None = None) -> _Candidates:
        """Rare tags of the `NEAREST` examples of each query, each once, by its nearest example.

        `start`: the queries are the examples from this one on, and none is an example for itself.
        Tags of `MIN_EXAMPLES` are among them, for they are rare to the examples that have them.
        """
        cosine = self._product(encoded.vectors, self._examples)
        if start is not None:
            own = np.arange(len(cosine))
            cosine[own, start + own] = -1.0
        nearest = _largest(cosine, NEAREST)
        tags = self._rare[nearest].reshape(len(cosine), -1)
        near = np.repeat(np.take_along_axis(cosine, nearest, axis=1), self._rare.shape[1], axis=1)
        rows, places = np.nonzero(tags >= 0)
        tags, near = tags[rows, places], near[rows, places]
        order = np.lexsort((-near, tags, rows))
        rows, tags, near = rows[order], tags[order], near[order]
        first = np.ones(len(rows), dtype=bool)
        first[1:] = (rows[1:] != rows[:-1]) | (tags[1:] != tags[:-1])
        rows, tags, near = rows[first], tags[first], near[first]
        words = self._tag_words.share(self._tag_words.held(encoded.tokens), rows, tags)
        features = [near, words, self._tag_words.total[tags]]
        return _Candidates(rows, tags, np.stack(features, axis=1))

    # --- files ---------------------------------------------------------------------------------

    def save(self, folder: str) -> None:
        """Write the bank as a folder of NumPy arrays and a card."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(target / _MODEL, allow_pickle=False, **self._arrays)
        (target / _CARD).write_text(json.dumps(asdict(self.card), indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, folder: str, encoder: SentenceEncoder) -> Bank:
        """Read a bank; UsageError where there is none, or another encoder made it."""
        card = read_card(folder)
        if card.encoder != encoder.digest:
            raise UsageError(
                f"tag.banks: {folder!r} was made with encoder {card.encoder}, this is "
                f"{encoder.digest}; make it anew with `tagsieve bank build`"
            )
        with np.load(Path(folder) / _MODEL) as stored:
            return cls(encoder, dict(stored), card)


def read_card(folder: str) -> Card:
    """The card of the bank in a folder; UsageError where there is none."""
    try:
        return Card(**json.loads((Path(folder) / _CARD).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"tag.banks: {folder!r} is no bank; use builtin, or make one with `tagsieve bank build`"
        ) from error


def bank_digest(folder: str) -> str:
    """16 hex digits over what decides a bank's answers."""
    return hashlib.sha256((Path(folder) / _MODEL).read_bytes()).hexdigest()[:16]


def bank_mean_tags(folder: str) -> float:
    """Tags per example of the bank in a folder."""
    with np.load(Path(folder) / _MODEL) as arrays:
        return len(arrays["labels"]) / (len(arrays["starts"]) - 1)


class _Labels:
    """The tags of each example, as numbers into one list of names (compressed rows)."""

    def __init__(self, names: list[str], starts: Array, numbers: Array) -> None:
        self.names, self.numbers = names, numbers
        self._starts, self.examples = starts, len(starts) - 1
        self._rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        self.counts = np.bincount(numbers, minlength=len(names))

    @classmethod
    def of(cls, lists: Sequence[Sequence[str]]) -> _Labels:
        names = sorted({tag for tags in lists for tag in tags})
        index = {tag: number for number, tag in enumerate(names)}
        starts = np.cumsum([0, *map(len, lists)])
        numbers = np.array([index[tag] for tags in lists for tag in tags], dtype=np.int32)
        return cls(names, starts, numbers)

    def arrays(self) -> dict[str, Array]:
        """What a file holds of it."""
        return {"names": np.array(self.names), "starts": self._starts, "labels": self.numbers}

    def matrix(self, tags: Array) -> Array:
        """Which of `tags` (numbers) each example has: 0 or 1, float32 [examples, tags]."""
        column = np.full(len(self.names), -1)
        column[tags] = np.arange(len(tags))
        columns = column[self.numbers]
        matrix = np.zeros((self.examples, len(tags)), dtype=np.float32)
        matrix[self._rows[columns >= 0], columns[columns >= 0]] = 1.0
        return matrix

    def has(self, rows: Array, tags: Array) -> Array:
        """Whether the example of each place has the tag of that place."""
        width = len(self.names)
        return np.isin(rows * width + tags, self._rows * width + self.numbers)

    def padded(self, wanted: Array) -> Array:
        """The wanted tags of each example, filled up with -1: [examples, most of an example]."""
        there = wanted[self.numbers]
        rows, numbers = self._rows[there], self.numbers[there]
        each = np.bincount(rows, minlength=self.examples)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(each) - each, each)
        table = np.full((len(each), max(int(each.max(initial=0)), 1)), -1, dtype=np.int64)
        table[rows, place] = numbers
        return table


def _largest(rows: Array, number: int) -> Array:
    """Columns of the `number` largest of each row (all, where there are fewer), largest first."""
    import torch

    number = min(number, rows.shape[1])
    found: Array = torch.from_numpy(rows).topk(number, dim=1).indices.numpy()
    return found


def _triples(pairs: _Candidates, chances: Array, sure: Array) -> Iterator[tuple[int, int, float]]:
    """Query, tag and chance of the candidates that are sure."""
    chosen = (pairs.rows[sure], pairs.tags[sure], chances[sure])
    yield from zip(*(array.tolist() for array in chosen), strict=True)


def _prediction(pairs: list[tuple[float, str]]) -> Prediction:
    """Tags by chance, ties by name."""
    ordered = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    return Prediction([tag for _, tag in ordered], [chance for chance, _ in ordered])
