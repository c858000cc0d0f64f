"""The training set of a scorer: files of prompts, each to be completed by a score."""

from __future__ import annotations

import json
import re
from typing import Any

import fsspec
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.errors import RunError
from tagsieve.evolving.config import EvolveConfig
from tagsieve.evolving.prompts import scorer_text
from tagsieve.evolving.work import Work

_KINDS = ("jsonl", "parquet")


def training_rows(work: Work, config: EvolveConfig) -> DataFrame:
    """`prompt`, `completion` ("1" to "6"), `seed_id`, `variant_id`, `round` and `score` of each
    variant of the seeds that are scored."""
    scores = F.map_from_entries(
        F.transform("items", lambda item: F.struct(item["id"], item["score"]))
    )
    variant = F.posexplode(F.arrays_zip("ids", "texts")).alias("round", "variant")
    rows = (
        work.groups(work.chains)
        .join(work.judged(), "judgement_id")
        .withColumn("scores", scores)
        .select("seed_id", "instruction", "scores", variant)
        .withColumn("score", F.element_at("scores", F.col("variant.ids")).cast("int"))
    )
    fields = {"instruction": F.col("variant.texts")}
    if config.what == "quality":
        fields = {"instruction": F.col("instruction"), "response": F.col("variant.texts")}
    return rows.select(
        _filled(scorer_text(config), fields).alias("prompt"),
        F.col("score").cast("string").alias("completion"),
        "seed_id",
        F.col("variant.ids").alias("variant_id"),
        "round",
        "score",
    )


def _filled(template: str, fields: dict[str, Column]) -> Column:
    """A template with columns in its places; braces in their values mean nothing."""
    parts = re.split("|".join(f"({{{name}}})" for name in fields), template)
    return F.concat(*(fields.get(part[1:-1], F.lit(part)) for part in parts if part))


def write_training_set(context: Context, work: Work, config: EvolveConfig) -> int:
    """Write `NAME.jsonl` and `NAME.parquet`, by seed and round, and their entry in
    `dataset_info.json`; gives the number of rows. Files that are there are replaced.

    Raises RunError when the folder cannot be written.
    """
    rows = context.stored("training", training_rows(work, config))
    count = rows.count()
    files, folder = fsspec.core.url_to_fs(config.path)
    try:
        files.makedirs(folder, exist_ok=True)
        for kind in _KINDS:
            _write(files, rows, f"{folder}/{config.name}", kind)
        _describe(files, f"{folder}/dataset_info.json", config.name)
    except (OSError, ValueError) as error:
        raise RunError(f"evolve.path={config.path}: cannot be written: {error}") from error
    return count


def _write(files: Any, rows: DataFrame, place: str, kind: str) -> None:
    """One file, written beside its place and moved there whole."""
    fresh = f"{place}.{kind}.new"
    target = files.unstrip_protocol(fresh).replace("s3://", "s3a://", 1)
    writer = rows.repartition(1).sortWithinPartitions("seed_id", "round").write.mode("overwrite")
    if kind == "jsonl":
        writer.json(target)
    else:
        writer.parquet(target)
    if files.exists(f"{place}.{kind}"):
        files.rm(f"{place}.{kind}")
    for part in files.glob(f"{fresh}/part-*"):  # none where there are no rows
        files.mv(part, f"{place}.{kind}")
    files.rm(fresh, recursive=True)


def _describe(files: Any, place: str, name: str) -> None:
    """Put the training set into what LLaMA-Factory reads, beside others of the folder."""
    info: Any = {}
    if files.exists(place):
        with files.open(place, "r", encoding="utf-8") as stream:
            info = json.load(stream)
        if not isinstance(info, dict):
            raise ValueError(f"{place} is there, and no JSON object")
    info[name] = {
        "file_name": f"{name}.jsonl",
        "columns": {"prompt": "prompt", "response": "completion"},
    }
    with files.open(place, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(info, indent=2) + "\n")
