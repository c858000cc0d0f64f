"""TACOS's selection, row by row."""


def scores_of(pairs, judgements):
    """Mean of all judgements of each row, of pairs with both orders. `judgements`: (first, second)
    -> their scores."""
    found = {}
    for a, b in set(pairs):
        if (a, b) in judgements and (b, a) in judgements:
            for x, y in ((a, b), (b, a)):
                for row, score in zip((x, y), judgements[x, y], strict=True):
                    found.setdefault(row, []).append(score)
    return {row: sum(scores) / len(scores) for row, scores in found.items()}


def chosen(clusters, scores, size):
    """Ids in the order of choosing. `clusters`: id -> cluster; `scores`: of those that have one.

    Round after round each cluster, by its number, gives its best row; one without a score only
    where it is the only one of its cluster.
    """
    members = {}
    for row, cluster in clusters.items():
        members.setdefault(cluster, []).append(row)
    queues = {}
    for cluster, rows in sorted(members.items()):
        ready = rows if len(rows) == 1 else [row for row in rows if row in scores]
        queues[cluster] = sorted(ready, key=lambda row: (-scores.get(row, 0), row))
    found = []
    for turn in range(size):
        for queue in queues.values():
            if turn < len(queue) and len(found) < size:
                found.append(queue[turn])
    return found
