"""The first rows of groups: no task is handed a group whole."""

from pyspark.sql import functions as F

from tagsieve.selection.outcome import drawn
from tagsieve.selection.stratified import equally_shared
from tagsieve.selection.tag_coverage import _filling


def plan_of(frame):
    return frame._jdf.queryExecution().executedPlan().toString()


def test_strata_are_cut_before_they_are_gathered(spark):
    rows = spark.range(100_000).select(
        F.lit("p").alias("pool"),
        F.col("id").cast("string").alias("sample_id"),
        (F.col("id") % 3).alias("stratum"),
    )
    assert "WindowGroupLimit" in plan_of(equally_shared(rows, [drawn(0)], 6000))


def test_rows_that_add_no_tag_are_cut_before_they_are_gathered(spark):
    key = F.struct(
        (-F.col("id") % 3).alias("order"),
        F.col("id").cast("string").alias("sample_id"),
        F.lit("p").alias("pool"),
    )
    rest = spark.range(100_000).select(key.alias("key"))
    found = _filling(rest, {1: 6000, 2: 10}, 5)
    assert "WindowGroupLimit" in plan_of(found)
    counts = {row["order"]: row["count"] for row in found.groupBy("key.order").count().collect()}
    assert counts == {-1: 6000, -2: 10}
