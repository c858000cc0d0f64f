"""Raw tag tables of any size with a known truth: Zipf frequencies, spellings, near-synonyms,
implications, and a tail of tags that come once. The same rows for any number of partitions.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

TASKS = (
    "analysis", "generation", "classification", "explanation", "translation", "summarization",
    "comparison", "calculation", "planning", "recommendation", "evaluation", "detection",
    "extraction", "optimization", "simulation", "prediction", "design", "writing", "editing",
    "review", "search", "testing", "modeling", "validation", "conversion", "formatting",
)  # fmt: skip
IMPLIED = 0.997
SINGLETONS = 0.05
"""Share of occurrences whose tag nobody else has."""


@dataclass(frozen=True)
class Generated:
    """`raw_tags`: `query_id`, `tags`; `samples`: one for each query; `truth`: `raw_tag`,
    `concept`; `implications`: `concept`, `implied`."""

    raw_tags: DataFrame
    samples: DataFrame
    truth: DataFrame
    implications: DataFrame


def generate(
    spark: SparkSession,
    occurrences: int,
    concepts: int = 20_000,
    seed: int = 7,
    partitions: int = 8,
) -> Generated:
    """About `occurrences` tags on queries with 4.5 tags in the mean."""
    names = concept_names(concepts)
    spellings = [
        (number, place, raw, name)
        for number, name in enumerate(names)
        for place, raw in enumerate(_spellings(number, name))
    ]
    table = spark.createDataFrame(
        spellings, "number int, place int, raw_tag string, concept string"
    )
    queries = round(occurrences / 4.5)
    ids = spark.range(queries, numPartitions=partitions).withColumn(
        "tags", F.lit(1) + F.pmod(F.xxhash64("id", F.lit(seed)), F.lit(8)).cast("int")
    )
    drawn = ids.select("id", F.explode(F.sequence(F.lit(1), F.col("tags"))).alias("n"))
    # Log-uniform places have Zipf's frequencies.
    number = F.floor(F.pow(F.lit(float(concepts)), _uniform("number", seed)) - 1).cast("int")
    drawn = drawn.withColumn("number", number)
    implying = (F.col("number") % 40 == 7) & (_uniform("implied", seed) < IMPLIED)
    both = F.when(implying, F.array("number", _implied())).otherwise(F.array("number"))
    spelled = drawn.select(
        "id", "n", F.explode(both).alias("number"), _uniform("spelling", seed).alias("u")
    ).withColumn("place", F.floor(F.pow("u", F.lit(3)) * SPELLINGS).cast("int"))
    rows = spelled.join(F.broadcast(table), ["number", "place"])
    alone = F.concat_ws(" ", "concept", F.hex("id"), F.col("n").cast("string"))
    raw = F.when(_uniform("alone", seed) < SINGLETONS, alone).otherwise(F.col("raw_tag"))
    tag = F.struct(raw.alias("tag"), F.lit("").alias("explanation"))
    raw_tags = rows.groupBy("id").agg(F.collect_set(tag).alias("tags"))
    raw_tags = raw_tags.select(F.md5(F.col("id").cast("string")).alias("query_id"), "tags")
    samples = raw_tags.select(
        F.col("query_id").alias("sample_id"), F.array("query_id").alias("query_ids")
    )
    truth = table.select("raw_tag", "concept")
    numbers = spark.range(concepts).select(F.col("id").cast("int").alias("number"))
    pairs = numbers.where("number % 40 = 7").withColumn("other", _implied())
    named = table.where("place = 0").select("number", "concept")
    implications = pairs.join(named, "number").join(
        named.select(F.col("number").alias("other"), F.col("concept").alias("implied")), "other"
    )
    return Generated(raw_tags, samples, truth, implications.select("concept", "implied"))


def _uniform(what: str, seed: int) -> Column:
    """A number in [0, 1) of a drawn tag, for one purpose."""
    return F.pmod(F.xxhash64("id", "n", F.lit(what), F.lit(seed)), F.lit(2**40)) / F.lit(2.0**40)


def _implied() -> Column:
    """The concept that every 40th one implies: a more frequent one."""
    return F.floor(F.col("number") / 3).cast("int")


def concept_names(count: int) -> list[str]:
    """Distinct phrases of a made word, or two, and a task."""
    heads = ("".join(parts) for parts in itertools.product(_ONSETS, _CORES, _ENDS))
    heads = itertools.chain(heads, (" ".join(pair) for pair in itertools.product(_FIELDS, _FIELDS)))
    names = (f"{head} {task}" for head in heads for task in TASKS)
    found = list(itertools.islice(names, count))
    if len(found) < count:
        raise ValueError(f"concepts={count}: at most {len(found)}")
    return found


_ONSETS = ("bra", "cle", "dro", "fli", "gra", "kno", "pla", "qui", "sto", "tra", "ve", "wi", "ze")
_CORES = ("ban", "cor", "den", "fil", "gor", "lum", "mar", "nel", "pol", "rit", "sol", "tar", "vin")
_ENDS = ("ax", "bo", "dic", "em", "fy", "gle", "ic", "ork", "ple", "um")
_FIELDS = ("market", "music", "protein", "travel", "tax", "climate", "poetry", "robot", "soil")

SPELLINGS = 7


def _spellings(number: int, name: str) -> list[str]:
    """Six spellings with one stem, the usual one first; every tenth concept has a near-synonym,
    too, which is the semantic step's to find."""
    title = name.title()
    head, _, task = name.rpartition(" ")
    return [
        name,
        name.replace(" ", "_"),
        title,
        name.replace(" ", "-"),
        title.replace(" ", "/"),
        f"{name}s",
        f"{task} of {head}" if number % 10 == 3 else name,
    ]
