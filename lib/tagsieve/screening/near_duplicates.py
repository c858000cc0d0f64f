"""Near-duplicates by MinHash LSH (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3).

Only what the library's signatures propose is compared, and only what its exact Jaccard similarity
confirms is removed. Nothing is collected on the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.screening.config import NearDuplicateConfig, ShingleConfig
from tagsieve.screening.words import hashed, human, runs, words_of

NEIGHBOURS = 8
"""With how many before it, in the order of who is kept, a text is compared in each bucket, besides
the first: all pairs of a bucket of up to 9 texts, a number that grows with the texts in others."""

PASSES = 3
"""How often texts are compared: after the first time those that are left, where a bucket has more
of them than are all compared with each other."""

_SEED = 1
_HASH_BYTES = 4


def near_duplicates(
    context: Context, config: NearDuplicateConfig, samples: DataFrame, pools: Sequence[str]
) -> DataFrame:
    """Contents (`sample_id`) to be left out, the twin that stays (`kept`) and the exact Jaccard
    similarity of the two (`similarity`, at least the threshold).

    Reads `pool`, `sample_id`, `turns` of `samples`. Who stays: the text of the first of `pools`
    (others follow, by name), of these the one with most words, then the least sample id. A text
    is left out when one that stays is a twin of it, so no chain of twins leads to a removal, and
    of two twins that were compared never both stay. Equal words count as one text. A text without
    any word is compared with none.
    """
    texts = context.stored("texts", _texts(samples, config, pools))
    order = F.struct("place", "pool", (-F.col("words")).alias("words"), "sample_id")
    heads = texts.groupBy("text").agg(
        F.min(order).alias("key"), F.any_value("shingles").alias("shingles")
    )
    signature = signatures(config.bands * config.band_size)
    heads = heads.withColumn("signature", signature(F.col("shingles")))
    heads = context.stored("heads", heads)
    removed = _removed(context, config, heads)
    twins = texts.join(heads.select("text", "key"), "text").join(removed, "key", "left")
    twin = F.coalesce("twin", F.col("key.sample_id"))
    return (
        twins.withColumn("kept", twin)
        .where(F.col("kept") != F.col("sample_id"))
        .select("sample_id", "kept", F.coalesce("similarity", F.lit(1.0)).alias("similarity"))
    )


def _texts(samples: DataFrame, config: NearDuplicateConfig, pools: Sequence[str]) -> DataFrame:
    """Each content once: `sample_id`, its first pool (`place`, `pool`), `words` (how many), `text`
    (a digest of the words) and `shingles` (distinct hashes)."""
    place = F.array_position(F.array(*map(F.lit, pools)), F.col("pool")) if pools else F.lit(0)
    place = F.when(place > 0, place).otherwise(len(pools) + 1)
    contents = samples.groupBy("sample_id").agg(
        F.min(F.struct(place.alias("place"), "pool")).alias("first"), F.min("turns").alias("turns")
    )
    said = F.col("turns")
    if config.text == "instruction":
        said = F.slice(F.filter(said, human), 1, 1)
    text = F.array_join(F.transform(said, lambda turn: turn["content"]), "\n")
    found = contents.select("sample_id", "first.*", words_of()(text).alias("listed"))
    listed = F.col("listed")
    return found.where(F.size(listed) > 0).select(
        "sample_id",
        "place",
        "pool",
        F.size(listed).alias("words"),
        F.md5(F.array_join(listed, " ")).alias("text"),
        shingles(listed, config.shingle).alias("shingles"),
    )


def shingles(listed: Column, config: ShingleConfig) -> Column:
    """The distinct hashes (64 bits) of the shingles of a text's words; at least one."""
    if config.of == "characters":
        characters = F.split(F.array_join(listed, ""), "")
        listed = F.filter(characters, lambda character: character != "")
    whole = F.array(F.xxhash64(listed))
    return F.when(F.size(listed) < config.size, whole).otherwise(
        F.array_distinct(hashed(runs(listed, config.size)))
    )


def signatures(hashes: int) -> Callable[..., Column]:
    """MinHash signatures by datasketch, as a Spark function of arrays of 64-bit hashes: `hashes`
    numbers of 4 bytes each."""

    @F.arrow_udf("binary")  # type: ignore[attr-defined, untyped-decorator]
    def signature(listed: pa.Array) -> pa.Array:
        from datasketch import MinHash

        drawn = MinHash(num_perm=hashes, seed=_SEED)
        found = []
        values = listed.flatten().to_numpy(zero_copy_only=False).astype(np.uint64)
        # datasketch takes the lower half, which of a 64-bit hash is a hash itself.
        values = (values & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        ends = np.cumsum(pa.compute.list_value_length(listed).to_numpy(zero_copy_only=False))
        for part in np.split(values, ends[:-1]):
            made = MinHash(
                permutations=drawn.permutations, scheme=drawn.scheme, num_perm=hashes, hashfunc=_own
            )
            made.update_batch(part)
            found.append(made.hashvalues.astype("<u4").tobytes())
        return pa.array(found, pa.binary())

    return signature  # type: ignore[no-any-return, unused-ignore]


def _own(value: Any) -> Any:
    """The value, which is a hash already."""
    return value


def _removed(context: Context, config: NearDuplicateConfig, heads: DataFrame) -> DataFrame:
    """Texts to be left out: `key`, `twin` (a sample id), `similarity`.

    In a bucket of many texts not all pairs are compared. What stays of it is compared again, which
    brings others together; then it is decided anew, by all pairs that were compared.
    """
    edges = context.stored("edges-0", _edges(config, heads))
    removed = context.stored("removed-0", _decided(context, edges, "pass-0"))
    for number in range(1, PASSES):
        left = heads.join(removed, "key", "left_anti")
        if not _crowded(config, left):
            break
        more = context.stored(f"edges-{number}", _edges(config, left))
        if more.isEmpty():
            break
        edges = edges.unionByName(more)
        removed = _decided(context, edges, f"pass-{number}")
        removed = context.stored(f"removed-{number}", removed)
    return removed


def _buckets(config: NearDuplicateConfig, heads: DataFrame) -> DataFrame:
    """`key` and `bucket`, a number for each band of its signature."""
    width = config.band_size * _HASH_BYTES

    def bucket(band: Column) -> Column:
        return F.xxhash64(band, F.substring("signature", band * width + 1, F.lit(width)))

    bands = F.sequence(F.lit(0), F.lit(config.bands - 1))
    return heads.select("key", F.explode(F.transform(bands, bucket)).alias("bucket"))


def _crowded(config: NearDuplicateConfig, heads: DataFrame) -> bool:
    """Whether a bucket has more texts than are all compared with each other."""
    counts = _buckets(config, heads).groupBy("bucket").count()
    return not counts.where(F.col("count") > NEIGHBOURS + 1).isEmpty()


def _edges(config: NearDuplicateConfig, heads: DataFrame) -> DataFrame:
    """Twins: `worse` and `better` (keys in the order of who stays) and their `similarity`."""
    inside = Window.partitionBy("bucket").orderBy("key")
    near = F.collect_list("key").over(inside.rowsBetween(-NEIGHBOURS, -1))
    first = F.first("key").over(inside.rowsBetween(Window.unboundedPreceding, 0))
    others = F.array_union(near, F.array(first))
    pairs = (
        _buckets(config, heads)
        .select(F.col("key").alias("worse"), others.alias("others"))
        .select("worse", F.explode("others").alias("better"))
        .where(F.col("worse") != F.col("better"))
        .distinct()
    )
    worse = heads.select(F.col("key").alias("worse"), F.col("shingles").alias("own"))
    better = heads.select(F.col("key").alias("better"), F.col("shingles").alias("other"))
    shared = F.size(F.array_intersect("own", "other"))
    similarity = shared / (F.size("own") + F.size("other") - shared)
    compared = pairs.join(worse, "worse").join(better, "better")
    twins = compared.select("worse", "better", similarity.alias("similarity"))
    return twins.where(F.col("similarity") >= config.threshold)


def _decided(context: Context, edges: DataFrame, name: str) -> DataFrame:
    """Who is left out, as if the texts were gone through in order, each left out that is a twin of
    one that stays: `key`, `twin` (of those that stay the most alike, then the first), `similarity`.

    In each round the texts that have no better twin left stay, and their twins go. Rounds grow
    with the logarithm of the texts in a component where their order has nothing to do with who is
    whose twin, as that of sample ids.
    """
    empty = edges.select(F.col("worse").alias("key")).limit(0)
    rounds: list[DataFrame] = []
    left = edges
    while True:
        worse = left.select(F.col("worse").alias("better")).distinct()
        staying = left.select("better").distinct().join(worse, "better", "left_anti")
        gone = left.join(staying, "better").select(F.col("worse").alias("key")).distinct()
        gone = context.stored(f"{name}-gone-{len(rounds)}", gone)
        if gone.isEmpty():
            break
        rounds.append(gone)
        for side in ("worse", "better"):
            left = left.join(gone.withColumnRenamed("key", side), side, "left_anti")
        left = context.stored(f"{name}-left-{len(rounds)}", left)
    removed = reduce(DataFrame.unionByName, rounds, empty)
    among = edges.join(removed.withColumnRenamed("key", "worse"), "worse").join(
        removed.withColumnRenamed("key", "better"), "better", "left_anti"
    )
    nearest = F.min(F.struct((-F.col("similarity")).alias("distance"), "better")).alias("best")
    return (
        among.groupBy(F.col("worse").alias("key"))
        .agg(nearest)
        .select(
            "key",
            F.col("best.better.sample_id").alias("twin"),
            (-F.col("best.distance")).alias("similarity"),
        )
    )
