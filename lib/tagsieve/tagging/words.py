"""Words of queries and tags as numbers: word pieces with one Porter stem are one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tagsieve.engines.encoders import Array

if TYPE_CHECKING:
    import torch

WORDS = 8192
"""The most words and word pairs the heads know."""

_HASHES = 1 << 24


def stem_groups(vocabulary: Sequence[str]) -> Array:
    """A number for each word piece; whole words with one Porter stem share it."""
    from nltk.stem.porter import PorterStemmer

    stem = PorterStemmer().stem
    numbers: dict[str, int] = {}
    whole = [piece if piece.startswith(("##", "[")) else stem(piece) for piece in vocabulary]
    return np.array([numbers.setdefault(piece, len(numbers)) for piece in whole], dtype=np.int32)


class KnownWords:
    """The words and word pairs that the heads know, by hash, with their weights.

    A query's words are one sparse row of length 1: `known` ones with `weights`, scaled.
    """

    def __init__(self, groups: Array, known: Array, weights: Array) -> None:
        self._groups = groups.astype(np.uint64)
        self.known, self.weights = known, weights

    @classmethod
    def of(cls, groups: Array, tokens: Sequence[Sequence[int]]) -> KnownWords:
        """The `WORDS` that most of the texts hold, of those that two texts hold. A weight is the
        root of the inverse document frequency: between counting all alike and rare ones only."""
        empty = np.empty(0, dtype=np.int64)
        _, hashes = cls(groups, empty, empty)._hashes(tokens)
        found, counts = np.unique(hashes, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:WORDS]
        order = np.sort(order[counts[order] > 1])
        weights = np.sqrt(np.log((len(tokens) + 1) / (counts[order] + 1)))
        return cls(groups, found[order].astype(np.int64), weights.astype(np.float32))

    def rows(self, tokens: Sequence[Sequence[int]]) -> tuple[Array, Array, Array]:
        """Sparse rows, in order: row, number of the word, value."""
        rows, hashes = self._hashes(tokens)
        columns = np.searchsorted(self.known, hashes)
        columns[columns == len(self.known)] = 0
        held = self.known[columns] == hashes
        rows, columns = rows[held], columns[held]
        values = self.weights[columns]
        norms = np.sqrt(np.bincount(rows, weights=values**2, minlength=len(tokens)))
        return rows, columns, (values / (norms[rows] + 1e-9)).astype(np.float32)

    def _hashes(self, tokens: Sequence[Sequence[int]]) -> tuple[Array, Array]:
        """Distinct (text, hash) pairs of words and of neighbouring words, in order."""
        rows, ids = _flat(tokens)
        words = self._groups[ids]
        same = rows[:-1] == rows[1:]
        first, second = words[:-1][same], words[1:][same]
        pairs = first * np.uint64(1_000_003) + second * np.uint64(7_919) + np.uint64(1)
        mixed = _mix(np.concatenate([words, pairs << np.uint64(20)])) % np.uint64(_HASHES)
        keys = np.concatenate([rows, rows[:-1][same]]) * _HASHES + mixed.astype(np.int64)
        distinct = np.unique(keys)
        return distinct // _HASHES, distinct % _HASHES


class TagWords:
    """How much of each tag's words a query holds.

    Weights are the words' inverse document frequencies among the bank's queries, as shares of the
    tag's whole: 1 means that all of the tag's words are there. `pieces` and `shares` are [tags,
    most words of a tag], filled up with a word that no query holds; `total` is the tag's whole.
    """

    def __init__(
        self, groups: Array, tag_tokens: Sequence[Sequence[int]], idf: Array | None
    ) -> None:
        self._groups = groups
        words = [np.unique(groups[np.array(ids[1:-1], dtype=np.int64)]) for ids in tag_tokens]
        used = np.unique(np.concatenate(words))
        self._column = np.full(int(groups.max()) + 1, -1, dtype=np.int64)
        self._column[used] = np.arange(len(used))
        self.number = len(used)
        self.pieces = np.full((len(words), max(map(len, words))), self.number, dtype=np.int64)
        for tag, listed in enumerate(words):
            self.pieces[tag, : len(listed)] = self._column[listed]
        weights = np.append(np.ones(self.number) if idf is None else idf, 0.0)[self.pieces]
        self.total = weights.sum(1).astype(np.float32)
        self.shares = (weights / np.maximum(self.total, 1e-9)[:, None]).astype(np.float32)

    def table(self, tags: Array) -> Array:
        """Dense shares of some tags: float32 [words, tags]."""
        table = np.zeros((self.number + 1, len(tags)), dtype=np.float32)
        table[self.pieces[tags].T, np.arange(len(tags))] = self.shares[tags].T
        return table[:-1]

    def held(self, tokens: Sequence[Sequence[int]]) -> tuple[Array, Array]:
        """Which of the tags' words each query holds: distinct (row, word) pairs, in order."""
        rows, ids = _flat(tokens)
        columns = self._column[self._groups[ids]]
        keys = np.unique((rows * self.number + columns)[columns >= 0])
        return keys // self.number, keys % self.number

    def share(self, held: tuple[Array, Array], rows: Array, tags: Array) -> Array:
        """The share of each tag's words that the query of the same place holds: float32."""
        size = int(max(rows.max(initial=-1), held[0].max(initial=-1))) + 1
        there = np.zeros((size, self.number + 1), dtype=bool)
        there[held] = True
        return np.asarray((there[rows[:, None], self.pieces[tags]] * self.shares[tags]).sum(1))


def sparse_product(
    rows: Array, columns: Array, values: Array | None, number: int, table: torch.Tensor
) -> Array:
    """Sparse rows times a table: float32 [number, width]. A row's result is its own sum, in order,
    whatever rows are beside it."""
    import torch

    starts = torch.from_numpy(np.searchsorted(rows, np.arange(number)))
    weights = None if values is None else torch.from_numpy(values)
    product: Array = torch.nn.functional.embedding_bag(
        torch.from_numpy(columns), table, starts, mode="sum", per_sample_weights=weights
    ).numpy()
    return product


def _flat(tokens: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Row and token of every token of every text."""
    rows = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])
    return rows, np.concatenate([np.asarray(ids, dtype=np.int64) for ids in tokens])


def _mix(numbers: Array) -> Array:
    """A 64-bit finaliser (SplitMix64): every bit of the input moves every bit of the result."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))
