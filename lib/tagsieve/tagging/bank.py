"""A bank of labelled queries, and the tagger that is fitted to it.

The model has two stages. Heads: ridge regression from a query's poolings and hashed words to every
tag that has at least `MIN_EXAMPLES` examples. Judge: one logistic regression, over products of
pairs of features, that looks at the heads' best candidates and decides each with what else is known
of the pair: how many of the tag's words the query holds, the cosine of query and tag phrase, how
common the tag is, how sure the heads are of others. It is fitted on leave-one-out scores of the
heads, so it sees them as wrong as they are on new queries. A bank holds vectors, tags and weights,
no text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tagsieve.engines.encoders import Array, Encoded, SentenceEncoder
from tagsieve.errors import UsageError

if TYPE_CHECKING:
    import torch

MIN_EXAMPLES = 3
"""A tag with fewer examples has no head; it is only copied from a very near example."""

CANDIDATES = 40
RIDGE = 0.4
WORD_SHARE = 0.25
"""Weight of the hashed words beside the poolings in what the heads see."""

WORD_HASHES, WORD_WIDTH = 1 << 16, 2048
TOTAL_OF = 20
CHUNK = 256
"""Queries of one matrix product: always the same shape, so that a query's tags do not depend on
the queries beside it."""

COPY_COSINE = 0.9
"""Cosine from which on an example's rare tags are copied."""

FEATURES = ("head", "words", "phrase", "examples", "best", "total")
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


class WordOverlap:
    """How much of each tag's words a query holds, by word pieces with their stems as one.

    Weights are the pieces' inverse document frequencies among the bank's queries, as shares of the
    tag's whole: 1 means that all of the tag's words are there.
    """

    def __init__(
        self, groups: Array, tag_tokens: Sequence[Sequence[int]], idf: Array | None
    ) -> None:
        self._group = groups
        pieces = [np.unique(self._group[np.array(ids[1:-1], dtype=np.int64)]) for ids in tag_tokens]
        used = np.unique(np.concatenate(pieces)) if pieces else np.empty(0, dtype=np.int64)
        self._column = np.full(self._group.max() + 1, -1, dtype=np.int64)
        self._column[used] = np.arange(len(used))
        self._pieces = [self._column[p] for p in pieces]
        self.idf = np.ones(len(used), dtype=np.float32) if idf is None else idf
        # [pieces, tags]: what is held, times this, is the share of each tag's words.
        self.weights = np.zeros((len(used), len(pieces)), dtype=np.float32)
        for tag, columns in enumerate(self._pieces):
            self.weights[columns, tag] = self.idf[columns]
        self.weights /= np.maximum(self.weights.sum(0, keepdims=True), 1e-9)

    def held(self, tokens: Sequence[Sequence[int]]) -> Array:
        """Which of the tags' pieces each query holds: 0 or 1, [queries, pieces]."""
        held = np.zeros((len(tokens), len(self.idf)), dtype=np.float32)
        rows = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])
        columns = self._column[self._group[np.concatenate([np.asarray(i) for i in tokens])]]
        held[rows[columns >= 0], columns[columns >= 0]] = 1.0
        return held


class HashedWords:
    """Words and word pairs of a query, hashed to `WORD_HASHES`, weighted by their inverse document
    frequency in the bank, and folded with random signs into a unit vector of `WORD_WIDTH`."""

    def __init__(self, groups: Array, idf: Array | None) -> None:
        self._group = groups.astype(np.uint64)
        random = np.random.default_rng(0)
        self._place = random.integers(0, WORD_WIDTH, WORD_HASHES)
        self._sign = random.choice(np.array([-1.0, 1.0], dtype=np.float32), WORD_HASHES)
        self.idf = np.ones(WORD_HASHES, dtype=np.float32) if idf is None else idf

    def hashes(self, tokens: Sequence[Sequence[int]]) -> tuple[Array, Array]:
        """Distinct (query, hash) pairs, as two arrays."""
        lengths = np.array([len(ids) for ids in tokens])
        rows = np.repeat(np.arange(len(tokens), dtype=np.uint64), lengths)
        words = self._group[np.concatenate([np.asarray(ids) for ids in tokens])]
        same = rows[:-1] == rows[1:]
        pairs = (words[:-1] * np.uint64(1_000_003) + words[1:] * np.uint64(7_919) + np.uint64(1))[
            same
        ]
        mixed = _mix(np.concatenate([words, pairs << np.uint64(20)])) % np.uint64(WORD_HASHES)
        keys = np.concatenate([rows, rows[:-1][same]]) * np.uint64(WORD_HASHES) + mixed
        distinct = np.unique(keys)
        found = (distinct // np.uint64(WORD_HASHES), distinct % np.uint64(WORD_HASHES))
        return found[0].astype(np.int64), found[1].astype(np.int64)

    def vectors(self, tokens: Sequence[Sequence[int]]) -> Array:
        """Unit vectors: float32 [queries, WORD_WIDTH]."""
        rows, hashes = self.hashes(tokens)
        flat = np.bincount(
            rows * WORD_WIDTH + self._place[hashes],
            weights=self.idf[hashes] * self._sign[hashes],
            minlength=len(tokens) * WORD_WIDTH,
        )
        folded = flat.reshape(len(tokens), WORD_WIDTH).astype(np.float32)
        return np.asarray(folded / (np.linalg.norm(folded, axis=1, keepdims=True) + 1e-9))


def _mix(numbers: Array) -> Array:
    """A 64-bit finaliser (SplitMix64): every bit of the input moves every bit of the result."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))


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
        import torch

        self.card = card
        self._arrays = arrays
        self.tags: list[str] = arrays["tags"].tolist()
        groups = _stem_groups(encoder.vocabulary)
        self._hashed = HashedWords(groups, arrays["hash_idf"])
        self._overlap = WordOverlap(groups, encoder.tokens(self.tags), arrays["idf"])
        self._word_shares = torch.from_numpy(self._overlap.weights).to(encoder.torch_dtype)
        self._log_count = np.log(arrays["counts"]).astype(np.float32)
        self._labels = _Labels(arrays["label_tags"].tolist(), arrays["starts"], arrays["labels"])
        # The matrix products run in the encoder's precision.
        kind = encoder.torch_dtype
        heads = arrays["heads"].astype(np.float32) * arrays["head_scale"]
        self._heads = torch.from_numpy(heads).to(kind)
        self._phrases = torch.from_numpy(encoder.encode(self.tags).T.copy()).to(kind)
        self._examples = torch.from_numpy(arrays["vectors"].astype(np.float32).T.copy()).to(kind)

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
        what the heads see. Raises UsageError when no tag has `MIN_EXAMPLES` examples.
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
        groups = _stem_groups(encoder.vocabulary)
        _, hashes = HashedWords(groups, None).hashes(encoded.tokens)
        seen = np.bincount(hashes, minlength=WORD_HASHES)
        hash_idf = np.where(seen < 2, 0.0, np.log((len(lists) + 1) / (seen + 1)))
        held = WordOverlap(groups, encoder.tokens(tags), None).held(encoded.tokens).sum(0)
        arrays = {
            "tags": np.array(tags),
            "counts": np.array([counts[tag] for tag in tags]),
            "mean": encoded.poolings.mean(0),
            "scale": encoded.poolings.std(0) + 1e-6,
            "hash_idf": hash_idf.astype(np.float32),
            "idf": np.log((len(lists) + 1) / (held + 1)).astype(np.float32),
            "vectors": encoded.vectors.astype(np.float16),
            **labels.arrays(),
        }
        truth = labels.matrix(tags)
        wide = _wide(encoded, arrays, HashedWords(groups, arrays["hash_idf"]))
        heads, left_out = _ridge(wide, truth)
        scale = np.abs(heads).max(0) / 127 + 1e-12
        arrays |= {"heads": np.round(heads / scale).astype(np.int8), "head_scale": scale}
        bank = cls(encoder, arrays, card)
        rows, columns, features = bank._candidates(encoded, left_out)
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

    def predict(self, encoded: Encoded) -> list[Prediction]:
        """Tags of each query; rare tags of an example at cosine `COPY_COSINE` or more come last."""
        found: list[list[tuple[float, str]]] = [[] for _ in encoded.tokens]
        with_head = set(self.tags)
        for start in range(0, len(encoded.tokens), CHUNK):
            chunk = encoded.slice(start, start + CHUNK)
            wide = _wide(chunk, self._arrays, self._hashed)
            scores = self._product(wide, self._heads).float().numpy()
            rows, columns, features = self._candidates(chunk, scores)
            chances = self._judge(features)
            sure = chances >= self._arrays["threshold"]
            for row, column, chance in zip(rows[sure], columns[sure], chances[sure], strict=True):
                found[start + row].append((float(chance), self.tags[column]))
            cosine, nearest = self._product(chunk.vectors, self._examples).max(1)
            for row in np.flatnonzero(cosine.float().numpy() >= COPY_COSINE):
                found[start + row] += [
                    (float(cosine[row]) - 2.0, tag)  # after the judged ones
                    for tag in self._labels.of_example(int(nearest[row]))
                    if tag not in with_head
                ]
        return [_prediction(pairs) for pairs in found]

    def _product(self, rows: Array, matrix: torch.Tensor) -> torch.Tensor:
        """`rows @ matrix`, in a product of `CHUNK` rows whatever their number (at most that)."""
        import torch

        full = np.zeros((CHUNK, rows.shape[1]), dtype=np.float32)
        full[: len(rows)] = rows
        return (torch.from_numpy(full).to(matrix.dtype) @ matrix)[: len(rows)]

    def _candidates(self, encoded: Encoded, scores: Array) -> tuple[Array, Array, Array]:
        """Rows, tags and `FEATURES` of the best candidates of each query."""
        starts = range(0, len(scores), CHUNK)
        chunks = [encoded.slice(start, start + CHUNK) for start in starts]
        held = [self._overlap.held(chunk.tokens) for chunk in chunks]
        words = np.concatenate([self._product(h, self._word_shares).float().numpy() for h in held])
        number = min(CANDIDATES, scores.shape[1])
        best = np.argpartition(-(scores + 0.05 * words), number - 1, axis=1)[:, :number]
        rows = np.repeat(np.arange(len(scores)), number)
        columns = best.ravel()
        phrase = np.concatenate(
            [self._product(chunk.vectors, self._phrases).float().numpy() for chunk in chunks]
        )
        own = np.take_along_axis(scores, best, axis=1)
        top = -np.sort(-own, axis=1)[:, :TOTAL_OF]
        features = np.stack(
            [
                own.ravel(),
                words[rows, columns],
                phrase[rows, columns],
                self._log_count[columns],
                top[rows, 0],
                np.maximum(top, 0).sum(1)[rows],
            ],
            axis=1,
        )
        return rows, columns, features

    def _judge(self, features: Array) -> Array:
        """The chance that each candidate is a tag of its query."""
        a = self._arrays
        pairs = _products((features - a["feature_mean"]) / a["feature_scale"])
        weights = a["judge"]
        logit = ((pairs - a["pair_mean"]) / a["pair_scale"] * weights[1:]).sum(1) + weights[0]
        return np.asarray(1.0 / (1.0 + np.exp(-logit)))

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
                f"{encoder.digest}; make it anew with `tagsieve bank`"
            )
        with np.load(Path(folder) / _MODEL) as stored:
            return cls(encoder, dict(stored), card)


def read_card(folder: str) -> Card:
    """The card of the bank in a folder; UsageError where there is none."""
    try:
        return Card(**json.loads((Path(folder) / _CARD).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"tag.banks: {folder!r} is no bank; use builtin, or make one with `tagsieve bank`"
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


def _wide(encoded: Encoded, arrays: dict[str, Array], hashed: HashedWords) -> Array:
    """What the heads see: standardised poolings, each of equal length, beside the hashed words;
    rows of length 1, float32 [queries, width]."""
    standard = (encoded.poolings - arrays["mean"]) / arrays["scale"]
    blocks = standard.reshape(len(standard), -1, encoded.vectors.shape[1])
    blocks /= np.linalg.norm(blocks, axis=2, keepdims=True) + 1e-9
    poolings = blocks.reshape(len(standard), -1) * np.sqrt((1 - WORD_SHARE) / blocks.shape[1])
    words = hashed.vectors(encoded.tokens) * np.sqrt(WORD_SHARE)
    return np.concatenate([poolings, words], axis=1, dtype=np.float32)


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


def _prediction(pairs: list[tuple[float, str]]) -> Prediction:
    """Judged tags by chance (0 to 1), then copied ones (stored as cosine - 2), ties by name."""
    ordered = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    scores = [score if score >= 0 else score + 2.0 for score, _ in ordered]
    return Prediction([tag for _, tag in ordered], scores)


def _products(features: Array) -> Array:
    """The features, their squares and their products: [n, f] -> [n, f (f + 3) / 2]."""
    first, second = np.triu_indices(features.shape[1])
    return np.concatenate([features, features[:, first] * features[:, second]], axis=1)


def _best_threshold(chances: Array, truth: Array, total: float) -> float:
    """The threshold with the best micro F1, when `total` tags are to be found; at most 0.5.

    For calibrated chances the best one is half of the best F1; a higher one comes only from a bank
    so small that nothing lies between right and wrong.
    """
    order = np.argsort(-chances)
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + total)
    return min(float(chances[order][f1.argmax()]), 0.5)
