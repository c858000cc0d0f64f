"""The train step: a selection, tags, a scorer's examples or preference pairs in; a model out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import fsspec
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.held_out import held_out
from tagsieve.engines.llm.prompts import load_prompt
from tagsieve.engines.models import forget_models
from tagsieve.engines.order import in_order
from tagsieve.engines.ray import cores, is_embedded
from tagsieve.engines.rejects import rejected
from tagsieve.errors import RunError
from tagsieve.lake import absolute, rows_table
from tagsieve.lease import lease
from tagsieve.ledger import fingerprint
from tagsieve.page import MODEL_NOTE, noted_in
from tagsieve.training.base import Base, load_base
from tagsieve.training.card import CARD, write_card
from tagsieve.training.config import WHERE_AND_HOW_FAST, InstaggerConfig, TrainConfig
from tagsieve.training.encoding import OVERLONG, encode
from tagsieve.training.loop import HELD_OUT, TRAIN, Board, Job
from tagsieve.training.running import Trained, run_training, workers_of, write_model
from tagsieve.training.sources import Source, encoding_of

ROWS_PER_FILE = 100_000


@dataclass(frozen=True)
class _Rows:
    """Rows of one kind: how many, how many of them are cut, their tokens, those of them that are
    trained on, and a hash of what they are."""

    count: int
    cut: int
    tokens: int
    trained: int
    digest: str


_NONE = _Rows(0, 0, 0, 0, "")


def train(context: Context, config: TrainConfig, source: Source, recipe: str) -> None:
    """Train a model on the rows of a source, write it with its card, and note it in `models`.

    Spark makes token ids of the rows and hands them over as Parquet; each worker of Ray Train maps
    them into memory. A training of the same rows, base model and settings goes on from its newest
    checkpoint; one that is done is known. Rejected: `held_out`, and `overlong`, `no_answer` and
    `template`, which are in `rejects`. One run at a time trains a model; RunError for the second.
    `recipe`: the resolved recipe, for the card.
    """
    run = context.run
    run.unit = "row"
    run.reads(*source.tables)
    base = load_base(config)
    with context.console.spark_progress(context.engines.spark, "train"):
        encoded = _encoded(context, config, source, base)
        counts = _counted(encoded, config.max_tokens)
    _refuse(config, source, encoded, counts)
    rows, aside = counts[TRAIN], counts.get(HELD_OUT, _NONE)
    run.input = sum(of.count for of in counts.values())
    model_id = _model_id(config, base, rows, aside)
    place = absolute(f"{config.path}/{config.name}")
    files, folder = fsspec.core.url_to_fs(place)
    if noted_in(files, f"{folder}/{CARD}", MODEL_NOTE) == model_id:
        run.known = run.input
        context.console.line(f"model    {place} is trained already ({model_id})")
        return
    if rows.cut:
        context.console.line(
            f"train: {rows.cut:,} of {rows.count:,} rows have more than {config.max_tokens:,} "
            "tokens (train.max_tokens) and lose their end"
        )
    with lease(context.lake, f"train-{model_id}", run.run_id):
        given = context.lake.work_uri(run.run_id, "rows")
        for side in (TRAIN, HELD_OUT):
            if counts.get(side, _NONE).count:
                _write_rows(context, encoded, side, counts[side].count, f"{given}/{side}")
        trained, job = _trained(context, config, base, given, bool(aside.count), place, model_id)
        write_model(trained, job, place)
        forget_models()
        run.kept = rows.count
        run.rejected.update({side: of.count for side, of in counts.items() if side != TRAIN})
        run.metrics |= _metrics(trained, rows, aside)
        _reject(context, encoded, source)
        made = _model_row(context, config, recipe, model_id, place, rows, trained)
        context.lake.upsert("models", rows_table("models", [made]))
        # Last: a folder without a card was cut off, and is written anew.
        write_card(files, folder, made, config, source.name, base)
    run.wrote("models", "rejects")
    context.console.line(f"model    {place}")


def _encoded(context: Context, config: TrainConfig, source: Source, base: Base) -> DataFrame:
    """What `encode` gives, with the `side`: `TRAIN`, `HELD_OUT`, or the reason why a row is on
    neither."""
    rows = source.rows(context)
    if context.limit is not None:
        rows = rows.orderBy("place").limit(context.limit)
    aside = held_out(F.col("id"), config.eval_share, config.seed)
    side = F.coalesce("reason", F.when(aside, HELD_OUT).otherwise(TRAIN)).alias("side")
    encoded = encode(rows, encoding_of(config, base.tokenizer)).select("*", side)
    return context.stored("encoded", encoded.drop("reason"))


def _ids(rows: DataFrame) -> list[str]:
    return [name for name in rows.columns if name.endswith("_ids") or name == "labels"]


def _counted(encoded: DataFrame, max_tokens: int) -> dict[str, _Rows]:
    """The rows by side."""
    digest = F.sum(F.xxhash64("place", *_ids(encoded)).cast("decimal(20,0)"))
    found = encoded.groupBy("side").agg(
        F.count("*").alias("count"),
        F.count_if(F.col("tokens") > max_tokens).alias("cut"),
        F.sum(F.least("tokens", F.lit(max_tokens))).alias("tokens"),
        F.sum("trained").alias("trained"),
        digest.cast("string").alias("digest"),
    )
    return {
        row["side"]: _Rows(*(row[each.name] for each in fields(_Rows))) for row in found.collect()
    }


def _refuse(
    config: TrainConfig, source: Source, encoded: DataFrame, counts: dict[str, _Rows]
) -> None:
    """Raise RunError where there is nothing to train on, or a row that must not be left out."""
    if not counts:
        raise RunError(f"train: {source.name} has no row; {source.hint}")
    too_long = counts.get(OVERLONG, _NONE).count
    if too_long and (config.overlong == "refuse" or TRAIN not in counts):
        longest = encoded.where(F.col("side") == OVERLONG).orderBy(F.desc("tokens")).first()
        assert longest is not None
        what = (
            "overlong=refuse" if config.overlong == "refuse" else f"max_tokens={config.max_tokens}"
        )
        raise RunError(
            f"train.{what}: {too_long:,} of {sum(of.count for of in counts.values()):,} rows of "
            f"{source.name} have more than {config.max_tokens:,} tokens, the longest "
            f"({longest['id']}) {longest['tokens']:,}; raise train.max_tokens, or leave them out"
        )
    if TRAIN not in counts:
        told = ", ".join(f"{of.count:,} {side}" for side, of in counts.items())
        raise RunError(f"train: {source.name} has no row to train on: {told}; {source.hint}")


def _model_id(config: TrainConfig, base: Base, rows: _Rows, aside: _Rows) -> str:
    """A readable name and a hash of all that decides the model."""
    settings = config.model_dump(exclude={"model", "revision", *WHERE_AND_HOW_FAST})
    template = base.tokenizer.chat_template
    prompt = None
    if isinstance(config, InstaggerConfig):
        prompt = load_prompt(config.prompt, ("query",)).content
    parts = (settings, base.digest, template, prompt, rows.digest, aside.digest)
    return f"{config.name}-{fingerprint(*parts)[:12]}"


def _write_rows(context: Context, encoded: DataFrame, side: str, count: int, uri: str) -> None:
    files = -(-count // ROWS_PER_FILE)
    rows = encoded.where(F.col("side") == side)
    # The same order of all rows, however they lie in files: a training may go on with these.
    rows = rows.repartitionByRange(files, "place", "id").sortWithinPartitions("place", "id")
    rows = rows.select(*_ids(encoded))
    rows.write.mode("overwrite").parquet(context.lake.spark_uri(uri))


def _trained(
    context: Context,
    config: TrainConfig,
    base: Base,
    rows: str,
    aside: bool,
    place: str,
    model_id: str,
) -> tuple[Trained, Job]:
    import ray

    engines = context.engines
    engines.ray()
    embedded = is_embedded(engines.ray_config)
    workers = workers_of(config, cores(engines.ray_config) if embedded else None)
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bfloat16" if workers.gpus else "float32"
    board = ray.remote(num_cpus=0)(Board).remote()
    # Where tensorboardX cannot write, the history in the card's folder has all figures.
    events = None if "://" in place else f"{place}/tensorboard/{model_id}"
    job = Job(
        config, base.model, base.revision, base.tokenizer, rows, aside, board, events, dtype,
        workers.gpus > 0, workers.cpus,
    )  # fmt: skip
    if job.parallel != config.parallel:
        context.console.line(
            f"train: train.parallel={config.parallel} needs GPUs; each of {workers.count} workers "
            "has the whole model"
        )
    trained = run_training(
        job, workers, f"{place}/checkpoints", _run_name(job, model_id), embedded, context.console
    )
    return trained, job


def _run_name(job: Job, model_id: str) -> str:
    """Of trainings that can go on from each other's checkpoints."""
    match job.parallel:
        case "ddp":
            return model_id
        case "fsdp":
            return f"{model_id}-fsdp"
    return f"{model_id}-deepspeed-{job.config.workers}"


def _metrics(trained: Trained, rows: _Rows, aside: _Rows) -> dict[str, float]:
    found = {
        "steps": float(trained.steps),
        "resumed_at": float(trained.began),
        "truncated": float(rows.cut),
        "tokens": float(rows.tokens),
        "trained_tokens": float(rows.trained),
        "held_out": float(aside.count),
    }
    last: dict[str, float] = {}
    for logged in trained.history:
        last |= logged
    for name in ("loss", "eval_loss", "mean_token_accuracy", "rewards/accuracies"):
        if name in last:
            found[name.replace("/", "_")] = float(last[name])
    return found


def _model_row(
    context: Context,
    config: TrainConfig,
    recipe: str,
    model_id: str,
    place: str,
    rows: _Rows,
    trained: Trained,
) -> dict[str, Any]:
    run = context.run
    history = [
        {"step": int(logged["step"]), "name": name, "value": float(value)}
        for logged in trained.history
        for name, value in logged.items()
        if name != "step" and isinstance(value, int | float)
    ]
    return {
        "model_id": model_id,
        "task": config.task,
        "path": place,
        "base": config.model,
        "recipe": recipe,
        "read_versions": run.read,
        "rows": rows.count,
        "steps": trained.steps,
        "metrics": run.metrics,
        "history": history,
        "created": datetime.now(UTC),
        "run_id": run.run_id,
    }


def _reject(context: Context, encoded: DataFrame, source: Source) -> None:
    """Put the rows that cannot be trained on into `rejects`, numbered by a hash of their ids."""
    left = encoded.where(~F.col("side").isin(TRAIN, HELD_OUT))
    if left.isEmpty():
        return
    rows = left.select(
        F.lit(source.name).alias("source"),
        F.col("id").alias("sample_id"),
        F.col("side").alias("reason"),
        F.col("place").cast("string").alias("pool"),
        F.lit(1).alias("amount"),
    )
    rows = in_order(rows, [], F.xxhash64("sample_id"))
    rows = rows.withColumns(
        {"source_row": F.col("place").cast("long"), "pool": F.lit(None).cast("string")}
    )
    context.lake.append(rejected(context, rows), "rejects")
