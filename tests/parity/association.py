"""Association rules by brute force, and merging by the words of METHODS.md, one item at a time."""

from collections import Counter
from itertools import combinations, permutations

import pandas as pd
from mlxtend.frequent_patterns import association_rules, fpgrowth
from mlxtend.preprocessing import TransactionEncoder


def rules(baskets, min_support, min_confidence):
    """{(antecedent, consequent): (support, confidence)} with one consequent, from all subsets."""
    support = {}
    for basket in baskets:
        for size in range(1, len(basket) + 1):
            for itemset in combinations(sorted(basket), size):
                support[itemset] = support.get(itemset, 0) + 1
    frequent = {itemset: n for itemset, n in support.items() if n >= min_support}
    found = {}
    for itemset, n in frequent.items():
        for item in itemset:
            antecedent = tuple(other for other in itemset if other != item)
            if antecedent and n / frequent[antecedent] >= min_confidence:
                found[antecedent, item] = (n, n / frequent[antecedent])
    return found


def merged(baskets, min_support, min_confidence):
    """({query: tags left}, {(antecedent, consequent): support}) of {query: tags}, by mlxtend."""
    encoder = TransactionEncoder().fit(list(baskets.values()))
    frame = pd.DataFrame(encoder.transform(list(baskets.values())), columns=encoder.columns_)
    sets = fpgrowth(frame, (min_support - 0.5) / len(baskets), use_colnames=True)
    table = association_rules(sets, metric="confidence", min_threshold=min_confidence)
    found = {
        (tuple(sorted(row.antecedents)), *row.consequents): round(row.support * len(baskets))
        for row in table.itertuples()
        if len(row.consequents) == 1
    }
    uses = Counter(tag for tags in baskets.values() for tag in tags)
    place = {tag: n for n, tag in enumerate(sorted(uses, key=lambda t: (-uses[t], t)))}
    kept = {}
    for query, tags in baskets.items():
        holding = [
            (tuple(place[a] for a in antecedent), place[item])
            for antecedent, item in found
            if item in tags and tags.issuperset(antecedent)
        ]
        stay = left({place[tag] for tag in tags}, holding) if holding else None
        kept[query] = tags if stay is None else {tag for tag in tags if place[tag] in stay}
    return kept, found


def left(items, holding):
    """Items that stay; `holding` are rules that hold in the query, a lesser item is more used."""
    single = {(x[0], c) for x, c in holding if len(x) == 1}
    components = strong_components(items, single)
    gone = set()
    for item in items:
        component = next(c for c in components if item in c)
        outside = any(x not in component for x, c in single if c == item)
        if outside or item != min(component):
            gone.add(item)
    for item in sorted(items):
        antecedents = [set(x) for x, c in holding if c == item and len(x) > 1]
        if item not in gone and any(x - gone for x in antecedents):
            gone.add(item)
    return set(items) - gone


def strong_components(items, edges):
    """Sets of items that lie on one circle (or alone), by trying all circles."""
    components = [{item} for item in items]
    for size in range(2, len(items) + 1):
        for way in permutations(sorted(items), size):
            if way[0] == min(way) and all(
                (way[n], way[(n + 1) % size]) in edges for n in range(size)
            ):
                joined = [c for c in components if c & set(way)]
                components = [c for c in components if not c & set(way)]
                components.append(set().union(*joined))
    return components
