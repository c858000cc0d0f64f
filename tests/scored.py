"""Lakes of conversations to score, and the scores in them."""

from handmade import put, sample
from tagsieve import records

PAIRS = [
    ("Write a poem about the sea", "The sea is wide and blue, and so are you."),
    ("Sort a list in Python", "sorted([3, 1, 2])"),
    ("What is the capital of France?", "Paris."),
    ("Explain photosynthesis " * 12, "Plants turn light into sugar. " * 25),
    ("Translate good morning", "Buenos días — 早上好 🌞"),
]


def conversation(turns, pool="p"):
    """A row of `samples` of (role, text) pairs."""
    return sample(pool, records.sample_id(turns), records.query_ids(turns), turns)


def add_pairs(lake, pairs=PAIRS, pool="p"):
    put(lake, "samples", [conversation([("user", a), ("assistant", b)], pool) for a, b in pairs])


def scores_of(lake, fingerprint):
    """(sample_id, turn) -> row of one scorer."""
    rows = [r for r in lake.arrow("scores").to_pylist() if r["scorer"] == fingerprint]
    found = {(row["sample_id"], row["turn"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def value(lake, fingerprint, turns, turn=0):
    """The score of one turn of a conversation."""
    return scores_of(lake, fingerprint)[records.sample_id(turns), turn]["value"]
