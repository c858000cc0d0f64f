"""Lakes of queries for the taggers."""

from tagsieve import records
from tagsieve.lake import rows_table

QUERIES = [
    "Write a poem about the sea",
    "Sort a list in Python",
    "What is the capital of France?",
    "Translate good morning into Spanish",
    "Explain photosynthesis to a child",
]


def add_samples(lake, texts, pool="p"):
    rows = [
        {
            "pool": pool,
            "sample_id": records.sample_id([("user", text), ("assistant", "ok")]),
            "turns": [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}],
            "query_ids": [records.query_id(text)],
        }
        for text in texts
    ]
    lake.append_once("samples", rows_table("samples", rows), f"{pool}-{len(texts)}", 1)


def tagged(lake):
    return {
        (row["query_id"], row["tagger"]): [tag["tag"] for tag in row["tags"]]
        for row in lake.arrow("raw_tags").to_pylist()
    }
