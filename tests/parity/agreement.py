"""How far two taggers agree, with sets and Counter, one query after the other."""

from collections import Counter, defaultdict
from statistics import mean

from parity.normalization import forms


def f1(hits, given, right):
    return 2 * hits / (given + right) if given + right else 1.0


def shown_forms(taggings, protected):
    """Raw tag -> most frequent surface form of its stem; each tag counted once per answer."""
    uses = Counter(tag for tags in taggings for tag in set(tags))
    surfaces = defaultdict(Counter)
    for tag, count in uses.items():
        surface, stem = forms(tag, protected)
        surfaces[stem][surface] += count
    best = {
        stem: min(counts, key=lambda surface: (-counts[surface], len(surface), surface))
        for stem, counts in surfaces.items()
    }
    return {tag: best[forms(tag, protected)[1]] for tag in uses}


def agreement(this, other, protected):
    """Figures, and (side, tag) -> (queries, shared), of two dicts query -> raw tags."""
    both = sorted(this.keys() & other.keys())
    shown = shown_forms([side[query] for side in (this, other) for query in both], protected)
    pairs = [({shown[t] for t in this[q]}, {shown[t] for t in other[q]}) for q in both]
    hits = sum(len(a & b) for a, b in pairs)
    given, right = sum(len(a) for a, _ in pairs), sum(len(b) for _, b in pairs)
    figures = {
        "queries": len(both),
        "equal": mean(a == b for a, b in pairs),
        "jaccard": mean(len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs),
        "precision": hits / given if given else None,
        "recall": hits / right if right else None,
        "f1": f1(hits, given, right),
        "macro_f1": mean(f1(len(a & b), len(a), len(b)) for a, b in pairs),
        "tags_per_query": given / len(both),
        "other_tags_per_query": right / len(both),
    }
    shared = Counter(tag for a, b in pairs for tag in a & b)
    only = {
        "this": Counter(tag for a, b in pairs for tag in a - b),
        "other": Counter(tag for a, b in pairs for tag in b - a),
    }
    counts = {(s, tag): (n, shared[tag]) for s, tags in only.items() for tag, n in tags.items()}
    return figures, counts
