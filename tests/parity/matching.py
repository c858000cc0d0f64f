"""How well one list of tags matches another, query by query, with sets and loops."""

import math
import unicodedata
from statistics import mean


def fold(tags):
    return {" ".join(unicodedata.normalize("NFC", tag).split()).casefold() for tag in tags} - {""}


def cosine(a, b):
    dot = math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(
        math.fsum(float(x) ** 2 for x in a) * math.fsum(float(y) ** 2 for y in b)
    )


def f1(precision, recall):
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def measures(right, found, given, wanted):
    """Precision, recall and F1; of two empty sets 1, of one 0."""
    if not given and not wanted:
        return 1.0, 1.0, 1.0
    precision, recall = right / given if given else 0.0, found / wanted if wanted else 0.0
    return precision, recall, f1(precision, recall)


def counts(gold, predicted, vectors, similarity):
    """Way -> predicted tags that are right, gold tags that are found; of one query."""

    def near(tag, others):
        return any(cosine(vectors[tag], vectors[other]) > similarity for other in others)

    exact = len(gold & predicted)
    fuzzy = sum(near(tag, gold) for tag in predicted), sum(near(tag, predicted) for tag in gold)
    return {"exact": (exact, exact), "fuzzy": fuzzy}


def figures(pairs, vectors, similarity):
    """Way -> measures over (gold, predicted) tags of queries."""
    folded = [(fold(gold), fold(predicted)) for gold, predicted in pairs]
    wanted, given = (sum(len(pair[side]) for pair in folded) for side in (0, 1))
    told = {}
    for way in ("exact", "fuzzy"):
        found = [counts(*pair, vectors, similarity)[way] for pair in folded]
        right, hit = (sum(each[side] for each in found) for side in (0, 1))
        each = [
            measures(*count, len(predicted), len(gold))
            for count, (gold, predicted) in zip(found, folded, strict=True)
        ]
        macro = [mean(query[place] for query in each) for place in range(3)]
        told[way] = {
            "precision": right / given if given else None,
            "recall": hit / wanted if wanted else None,
            "f1": measures(right, hit, given, wanted)[2],
            "macro_precision": macro[0],
            "macro_recall": macro[1],
            "macro_f1": macro[2],
        }
    return told
