"""Which texts are evolved, and the ids of all variants to be, known before the first is asked for.

The id of a variant is a hash of the generator's fingerprint, the operator and its parent's id; so
what is lacking is found by ids alone, and more rounds later go on from the variants that are there.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.evolving.config import EvolveConfig
from tagsieve.records import ID_LENGTH


def drawn_seeds(samples: DataFrame, config: EvolveConfig) -> DataFrame:
    """`seed_id`, `instruction` and `response` (null for complexity) of `config.seeds` seeds; fewer
    where there are not as many.

    Complexity: distinct first human turns, called by their query id; of texts with one id, the
    least. Quality: distinct pairs of the first human turn and the assistant turn right after it,
    called by the least sample id that has them. Those with the least hashes are drawn, so a pool
    that grows by a hundredth changes about a hundredth of them.
    """
    asked = F.array_position(F.transform("turns", lambda turn: turn["role"]), F.lit("user"))
    after = F.try_element_at("turns", (F.col("place") + 1).cast("int"))
    firsts = (
        samples.withColumn("place", asked)
        .where("place > 0")
        .select(
            "sample_id",
            F.element_at("query_ids", 1).alias("query_id"),
            F.element_at("turns", F.col("place").cast("int"))["content"].alias("instruction"),
            F.when(after["role"] == "assistant", after["content"]).alias("response"),
        )
    )
    if config.what == "complexity":
        seeds = firsts.groupBy(F.col("query_id").alias("seed_id")).agg(
            F.min("instruction").alias("instruction"), F.lit(None).cast("string").alias("response")
        )
    else:
        whole = firsts.where(F.length(F.trim("response")) > 0)
        seeds = whole.groupBy("query_id", "response").agg(
            F.min("sample_id").alias("seed_id"), F.min("instruction").alias("instruction")
        )
    drawn = F.xxhash64(F.lit(config.seed), "seed_id")
    return (
        seeds.select("seed_id", "instruction", "response")
        .orderBy(drawn, "seed_id")
        .limit(config.seeds)
    )


def with_chains(
    seeds: DataFrame, config: EvolveConfig, generator: str, judge: str, operators: list[str]
) -> DataFrame:
    """`seeds` with `ids`, of the seed and its variants by round; `operators`, one for each round
    from 1; and `judgement_id`, of the group of all."""
    choices = F.array(*map(F.lit, operators))

    def operator(number: Column) -> Column:
        drawn = F.xxhash64(F.lit(config.seed), "seed_id", number)
        return F.element_at(choices, (F.pmod(drawn, F.size(choices)) + 1).cast("int"))

    def evolved(ids: Column, chosen: Column) -> Column:
        return F.array_append(ids, _hash(F.lit(generator), chosen, F.element_at(ids, -1)))

    rounds = F.sequence(F.lit(1), F.lit(config.rounds))
    group = _hash(F.lit(judge), F.lit(str(config.seed)), F.element_at("ids", -1))
    return (
        seeds.withColumn("operators", F.transform(rounds, operator))
        .withColumn("ids", F.aggregate("operators", F.array("seed_id"), evolved))
        .withColumn("judgement_id", group)
    )


def _hash(*parts: Column) -> Column:
    return F.substring(F.sha2(F.concat_ws(" ", *parts), 256), 1, ID_LENGTH)
