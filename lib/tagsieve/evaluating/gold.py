"""The teacher's tags, which a tagger is measured by: `query_id`, `text` and `tags` (a list of
strings, as the teacher gave them) of each query."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.handover import Parts
from tagsieve.records import query_id

GOLD = pa.schema(
    [("query_id", pa.string()), ("text", pa.string()), ("tags", pa.list_(pa.string()))]
)

AT_ONCE = 10_000
"""Lines of a file that are held at a time."""


def of_lake(context: Context, teacher: str, queries: DataFrame) -> DataFrame:
    """The rows of `raw_tags` of a tagger, of `queries` (`query_id`, `text`)."""
    rows = context.pinned("raw_tags").where(F.col("tagger") == teacher)
    return queries.join(rows.select("query_id", F.col("tags.tag").alias("tags")), "query_id")


def of_file(context: Context, labelled: Iterable[tuple[str, list[str]]]) -> DataFrame:
    """Queries with their tags from a file; those of a query that is there twice are joined."""
    parts = Parts(context, "labelled", GOLD)
    waiting = []
    for text, tags in labelled:
        waiting.append({"query_id": query_id(text), "text": text, "tags": tags})
        if len(waiting) == AT_ONCE:
            parts.add(pa.Table.from_pylist(waiting, schema=GOLD))
            waiting = []
    parts.add(pa.Table.from_pylist(waiting, schema=GOLD))
    rows = parts.frame()  # starts Spark, without which there is no function of columns
    lists = F.flatten(F.collect_list("tags"))
    return rows.groupBy("query_id").agg(F.min("text").alias("text"), lists.alias("tags"))


def normalised(gold: DataFrame, names: DataFrame) -> DataFrame:
    """Each tag replaced by its name in an ontology (`raw_tag`, `tag`); one that has none is left
    out, and `tags` of a query without any is null."""
    each = gold.select("query_id", F.explode("tags").alias("raw_tag")).join(names, "raw_tag")
    named = each.groupBy("query_id").agg(F.collect_set("tag").alias("tags"))
    return gold.drop("tags").join(named, "query_id", "left")
