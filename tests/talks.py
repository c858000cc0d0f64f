"""Lakes of conversations for the encoders."""

from tagsieve import records
from tagsieve.lake import rows_table

TALKS = [
    [("user", "Write a poem about the sea"), ("assistant", "The sea is blue.")],
    [("user", "Sort a list in Python"), ("assistant", "sorted(x)"), ("user", "Why?"),
     ("assistant", "It is built in.")],
    [("system", "Be brief."), ("user", "What is the capital of France?"), ("assistant", "Paris")],
    [("user", "Translate good morning into Spanish"), ("assistant", "Buenos días")],
    [("user", "短い質問"), ("assistant", "はい")],
]  # fmt: skip


def turns_of(talk):
    return [{"role": role, "content": text} for role, text in talk]


def add_talks(lake, talks, pool="p"):
    rows = [
        {
            "pool": pool,
            "sample_id": records.sample_id(talk),
            "turns": turns_of(talk),
            "query_ids": records.query_ids(talk),
        }
        for talk in talks
    ]
    lake.append_once("samples", rows_table("samples", rows), f"{pool}-{len(talks)}", 1)


def vectors_of(lake):
    """sample_id -> vector, of a lake with one encoder; no conversation is there twice."""
    table = lake.arrow("embeddings")
    found = dict(zip(table["sample_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    assert len(found) == table.num_rows
    return found
