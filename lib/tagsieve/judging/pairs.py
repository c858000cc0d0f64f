"""Comparative scoring: the conversations of each cluster in pairs, in both orders (TACOS, section
III.B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.compared import both_orders, members
from tagsieve.engines.context import Context
from tagsieve.engines.screened import SCREENED
from tagsieve.errors import RunError
from tagsieve.judging.asking import Asker
from tagsieve.judging.config import JudgePairsConfig
from tagsieve.judging.pairing import new_pairs
from tagsieve.judging.winning import PositionBias
from tagsieve.judging.work import Wanted, judgement_id_column, judgements_of
from tagsieve.ledger import fingerprint

PAIR = ["group_id", "round", "a", "b"]


@dataclass(frozen=True)
class PairSources:
    """What a recipe's other steps made, for pairs: the clustering; pools that are a target, whose
    conversations are not judged; the screening whose finds are left out."""

    clustering: str
    targets: Sequence[str] = ()
    screening: str | None = None


def pairs_asker(config: JudgePairsConfig) -> Asker:
    """The judge. Raises UsageError when its prompt cannot be used."""
    return Asker.of("pair", config.engine, config.prompt, "judge.engine", config.scale)


class PairsTask:
    """As a `Task`."""

    def __init__(self, config: JudgePairsConfig, sources: PairSources) -> None:
        self._config, self._sources = config, sources
        self._asker = pairs_asker(config)
        self._pairing = pairing_name(config, sources.clustering)

    @property
    def askers(self) -> list[Asker]:
        """The judge."""
        return [self._asker]

    @property
    def reads(self) -> list[str]:
        """The tables."""
        screening = [] if self._sources.screening is None else SCREENED
        return ["samples", "clusters", *screening]

    @property
    def identity(self) -> list[Any]:
        """What decides which pairs are judged, and how."""
        targets, screening = sorted(self._sources.targets), self._sources.screening
        return [self._asker.judge, self._pairing, self._config.rounds, targets, screening]

    def wanted(self, context: Context) -> list[Wanted]:
        """Each pair in both orders; new pairs are stored first."""
        with context.console.spark_progress(context.engines.spark, "judge: pairs"):
            sources = self._sources
            rows = members(context, sources.clustering, sources.targets, sources.screening)
            self._members = context.stored("members", rows)
            self._pairs = planned(context, self._config, self._pairing, self._members)
        context.run.wrote("pairs")
        return [_wanted(context, self._asker, self._pairs)]

    def tell(self, context: Context) -> None:
        """Say how the judge goes by position, and how many conversations have no pair."""
        with context.console.spark_progress(context.engines.spark, "judge: outcome"):
            told = _outcome(context, self._asker.judge, self._pairs, self._members)
        context.console.line(f"judge: {told}")


def pairing_name(config: JudgePairsConfig, clustering: str) -> str:
    """The name of the pairs in their table: what they are drawn from, and how."""
    return f"{clustering}-{fingerprint(config.seed)[:8]}"


def planned(context: Context, config: JudgePairsConfig, name: str, rows: DataFrame) -> DataFrame:
    """The pairs (`PAIR`) of members (`group_id`, `sample_id`), those that are new added to `pairs`.

    Pairs of which one is no member any more are left out. Raises RunError where there is no
    member.
    """
    lake, spark = context.lake, context.engines.spark
    if rows.isEmpty():
        raise RunError(
            "judge: no conversation has a cluster; run the step cluster with the same settings of "
            "tag, normalize and cluster first"
        )
    known = lake.read(spark, "pairs").where(F.col("pairing") == name).select(*PAIR)
    for end in ("a", "b"):
        left = rows.select("group_id", F.col("sample_id").alias(end))
        known = known.join(left, ["group_id", end], "left_semi")
    known = context.stored("known-pairs", known.select(*PAIR))
    new = context.stored("new-pairs", new_pairs(rows, known, config.rounds, config.seed))
    named = {"pairing": F.lit(name), "run_id": F.lit(context.run.run_id)}
    if not new.isEmpty():
        lake.insert_new(new.withColumns(named), "pairs", {"pairing": name})
    return known.unionByName(new.select(*PAIR)).where(F.col("round") < config.rounds)


def _wanted(context: Context, asker: Asker, pairs: DataFrame) -> Wanted:
    both = pairs.groupBy("a", "b").agg(F.min("group_id").alias("group_id"))
    orders = F.array(*(F.struct(F.col(x).alias("x"), F.col(y).alias("y")) for x, y in ("ab", "ba")))
    shown = both.select("group_id", F.explode(orders).alias("shown")).select("group_id", "shown.*")
    rows = shown.withColumn(
        "judgement_id", judgement_id_column(asker.judge, F.col("x"), F.col("y"))
    )

    def questions(lacking: DataFrame) -> DataFrame:
        ids = lacking.select(F.explode(F.array("x", "y")).alias("sample_id")).distinct()
        samples = context.pinned("samples").join(ids, "sample_id", "left_semi")
        # Of texts with one id, the least.
        texts = samples.groupBy("sample_id").agg(F.min("turns").alias("turns"))
        texts = texts.select("sample_id", _transcript().alias("text"))
        for end in ("x", "y"):
            text = texts.select(F.col("sample_id").alias(end), F.col("text").alias(f"text_{end}"))
            lacking = lacking.join(text, end)
        named = [F.lit("first"), F.col("text_x"), F.lit("second"), F.col("text_y")]
        return lacking.select(
            "judgement_id",
            "group_id",
            F.lit("comparative").alias("criterion"),
            F.array("x", "y").alias("ids"),
            F.create_map(*named).alias("fields"),
        )

    return Wanted(asker, rows, questions)


def _transcript() -> Column:
    """A conversation as a judge reads it."""
    lines = F.transform(
        "turns", lambda turn: F.concat(F.initcap(turn["role"]), F.lit(": "), turn["content"])
    )
    return F.array_join(lines, "\n\n")


def _outcome(context: Context, judge: str, pairs: DataFrame, rows: DataFrame) -> str:
    """How the judge goes by position, and how many members have no pair; noted in the run, too."""
    run = context.run
    judged = pairs.select("a", "b").distinct()
    judged = judged.join(both_orders(judgements_of(context, judge), judge), ["a", "b"])
    outcome = [F.signum(F.col(order)["a"] - F.col(order)["b"]) for order in ("one", "other")]
    counts = judged.groupBy(outcome[0].alias("one"), outcome[1].alias("other")).count().collect()
    paired = pairs.select(F.explode(F.array("a", "b")).alias("sample_id")).distinct()
    unpaired = rows.join(paired, "sample_id", "left_anti").count()
    run.metrics |= {"pairs": float(pairs.count()), "unpaired": float(unpaired)}
    told = f"{unpaired:,} conversations are the only ones of their cluster"
    if not counts:
        return told
    bias = PositionBias.of({(int(row[0]), int(row[1])): row[2] for row in counts})
    run.metrics |= {"changed": bias.changed, "first_place_advantage": bias.advantage}
    return f"{bias.told()}; {told}"
