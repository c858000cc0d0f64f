"""Normalisation (InsTag, section 3.2) with dicts and Counter, one tag after the other."""

import unicodedata
from collections import Counter, defaultdict
from itertools import groupby

import numpy as np
from nltk.stem.porter import PorterStemmer
from sklearn.cluster import DBSCAN


def is_word(sign):
    return unicodedata.category(sign)[0] in "LMN"


def words(tag, protected):
    """Lower-case words of a tag; a protected name with signs stays whole between borders."""
    text = unicodedata.normalize("NFC", tag.lower())
    for name in sorted((n for n in protected if not all(map(is_word, n))), key=len, reverse=True):
        head, found, tail = text.partition(name)
        border = is_word if is_word(name[-1]) else "+#".__contains__
        if found and not (head and is_word(head[-1])) and not (tail and border(tail[0])):
            return [*words(head, protected), name, *words(tail, protected)]
    runs = groupby(text, is_word)
    return ["".join(run) for word, run in runs if word]


def forms(tag, protected):
    """The surface form and the Porter stem of a tag."""
    found = words(tag, protected)
    stem = PorterStemmer().stem
    surface = " ".join(found) or tag.lower()
    return surface, " ".join(w if w in protected else stem(w) for w in found) or surface


def tag_counts(samples, raw_tags):
    """In how many distinct queries each raw tag stands."""
    return Counter(tag for tags in raw_tags.values() for tag in set(tags))


def ontology(counts, min_count, protected):
    """Raw tag -> (count, status, display form of its stem group or None)."""
    kept = {tag: n for tag, n in counts.items() if n >= min_count}
    stem_of, surfaces = {}, defaultdict(Counter)
    for tag, count in kept.items():
        surface, stem_of[tag] = forms(tag, protected)
        surfaces[stem_of[tag]][surface] += count
    display = {
        stem: min(uses, key=lambda surface: (-uses[surface], len(surface), surface))
        for stem, uses in surfaces.items()
    }
    return {
        tag: (n, "kept", display[stem_of[tag]]) if tag in kept else (n, "rare", None)
        for tag, n in counts.items()
    }


def semantic_names(uses, vectors, eps, min_samples):
    """Tag -> the most used, then shortest, then first tag of its DBSCAN cluster."""
    tags = sorted(uses)
    wide = np.array([vectors[tag] for tag in tags], dtype=np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    far = np.clip(1 - wide @ wide.T, 0, None)
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(far)
    members = defaultdict(list)
    for tag, label in zip(tags, labels, strict=True):
        members[tag if label < 0 else int(label)].append(tag)
    return {
        tag: min(group, key=lambda t: (-uses[t], len(t), t))
        for group in members.values()
        for tag in group
    }


def sample_tags(samples, raw_tags, rows):
    """Sample -> (sorted union, sorted tags of each turn), where all its queries have an answer."""
    turn_tags = {
        sample: [sorted({rows[tag][2] for tag in raw_tags[query]} - {None}) for query in queries]
        for sample, queries in samples.items()
        if all(query in raw_tags for query in queries)
    }
    return {sample: (sorted(set().union(*tags)), tags) for sample, tags in turn_tags.items()}


def funnel(rows):
    """(stage, distinct tags, occurrences) after each step."""
    kept = {tag: row for tag, row in rows.items() if row[1] == "kept"}
    uses = sum(row[0] for row in kept.values())
    return [
        ("raw", len(rows), sum(row[0] for row in rows.values())),
        ("frequency", len(kept), uses),
        ("rule", len({row[2] for row in kept.values()}), uses),
    ]
