"""Clusters of tags, and of conversations by their tags, one after the other, in exact fractions.

`vectors` (lists of floats) and `cluster_of` are by tag, `centroids` by cluster, `rows` (lists of
tags) and `queries` (the first human turn in each pool) by sample id.
"""

from collections import Counter
from fractions import Fraction


def apart(left, right):
    """The squared Euclidean distance."""
    return sum((Fraction(x) - Fraction(y)) ** 2 for x, y in zip(left, right, strict=True))


def nearest(vector, centroids, among):
    """Of some clusters the one with the nearest centroid, of equals the least."""
    return min(among, key=lambda cluster: (apart(vector, centroids[cluster]), cluster))


def tags_assigned(vectors, centroids):
    """The cluster of each tag."""
    everywhere = range(len(centroids))
    return {tag: nearest(vector, centroids, everywhere) for tag, vector in vectors.items()}


def assigned(rows, cluster_of, vectors, centroids):
    """The cluster of each row with tags; and the rows of which several clusters have most tags."""
    clusters, tied = {}, set()
    for key, tags in rows.items():
        if not tags:
            continue
        votes = Counter(cluster_of[tag] for tag in tags)
        leading = [cluster for cluster, count in votes.items() if count == max(votes.values())]
        columns = zip(*(vectors[tag] for tag in tags), strict=True)
        mean = [sum(map(Fraction, column)) / len(tags) for column in columns]
        clusters[key] = nearest(mean, centroids, leading)
        if len(leading) > 1:
            tied.add(key)
    return clusters, tied


def labels(rows, clusters, cluster_of, vectors, centroids, queries):
    """(label, tags, samples, representative) of each cluster, in order."""
    uses = Counter(tag for tags in rows.values() for tag in tags)
    found = []
    for cluster, centroid in enumerate(centroids):
        tags = [tag for tag in uses if cluster_of[tag] == cluster]
        tags.sort(key=lambda tag: (-uses[tag], apart(vectors[tag], centroid), tag))
        members = [key for key, of in clusters.items() if of == cluster]
        members.sort(key=lambda key: (-max(len(query) for query in queries[key]), key))
        first = [next(iter(names), None) for names in (tags, members)]
        found.append((first[0], len(tags), len(members), first[1]))
    return found
