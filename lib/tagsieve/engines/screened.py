"""What a screening found, for the steps that leave it out."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context

NEAR_DUPLICATE = "near_duplicate_text"
CONTAMINATED = "contaminated"

SCREENED = ("near_duplicates", "contaminations")
"""The tables that a step reads which leaves out what was found."""


def screened(context: Context, screening: str) -> DataFrame:
    """`sample_id`, once, the reason to leave it out (`left_out`: `near_duplicate_text` or
    `contaminated`) and `why` as JSON: the twin that stays (`kept`, `similarity`), or the question
    that it has most of (`test_set`, `question`, `how`, `overlap`, `similarity`, `text`)."""
    own = F.col("screening") == screening
    twins = context.pinned("near_duplicates").where(own)
    twin = F.to_json(F.struct("kept", "similarity"))
    questions = context.pinned("contaminations").where(own)
    told = F.struct("test_set", "question", "how", "overlap", "similarity", "text")
    most = F.struct(-F.coalesce("overlap", "similarity"), "test_set", "question")
    asked = questions.groupBy("sample_id").agg(F.to_json(F.min_by(told, most)).alias("why"))
    return twins.select(
        "sample_id", F.lit(NEAR_DUPLICATE).alias("left_out"), twin.alias("why")
    ).unionByName(asked.select("sample_id", F.lit(CONTAMINATED).alias("left_out"), "why"))
