"""The mix step: samples in, one mixture out, or those of a study.

Demystifying Instruction Mixing for Fine-tuning LLMs, section 3, for any number of pools.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.order import in_order
from tagsieve.engines.pools import first_pools
from tagsieve.engines.rejects import rejected
from tagsieve.engines.screened import SCREENED, screened
from tagsieve.errors import RunError
from tagsieve.mixing.amounts import Ask, asks, granted
from tagsieve.mixing.config import MixConfig, ProportionsConfig, TagsConfig
from tagsieve.mixing.order import drawn, interleaved

KEY = ["pool", "sample_id"]


def mix(
    context: Context,
    config: MixConfig,
    inputs: Sequence[str],
    version: str | None = None,
    scorers: Sequence[str] = (),
    screening: str | None = None,
) -> None:
    """Make the mixture `config.name`, or the mixtures of a study, in one commit.

    `inputs`: the recipe's pools. `version`: the ontology version whose tags make parts. `scorers`:
    fingerprints of `config.tokens_by`. `screening`: whose finds are left out. A part's rows have
    one order, and each mixture takes the beginning of it: of a study, the smaller is in the larger.
    In tokens, a mixture takes rows as long as they fit.

    Rejected reasons: `no_part`, `near_duplicate_text` and `contaminated` by the screening,
    `not_in_selection`, `untagged`, `unscored`, `other_pool`, `over_cap`, and `not_selected` for
    what no mixture took. Raises RunError when a part has less than is asked of it and `over_ask` is
    `error`, when it has nothing, and for a selection or a key of `subtask` that no row has.
    """
    run, lake = context.run, context.lake
    run.unit = "sample"
    run.reads("samples", *sorted(config.reads))
    if screening is not None:
        run.reads(*SCREENED)
    names = config.names(inputs)
    made_by = {lake.run_of("mixtures", "mixture", name) for name in names}
    current = made_by.pop() if len(made_by) == 1 else None
    parts = config.pools_of(inputs)
    identity = (config.model_dump(), list(parts.items()), version, list(scorers), screening)
    if run.done_before(*identity, output_of=current):
        return
    with context.console.spark_progress(context.engines.spark, "mix"):
        if isinstance(config, ProportionsConfig) and config.shares_of is not None:
            shares = _shares(context, config.shares_of, parts)
            config = config.model_copy(update={"shares": shares})
        samples = _samples(context, config, parts, version, scorers, screening)
        told = samples.groupBy("part", "reason").agg(
            F.count("*").alias("rows"), F.sum("amount").alias("amount")
        )
        rows, there = dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)
        refused: Counter[str] = Counter()
        for row in told.collect():
            run.input += row["rows"]
            if row["reason"] is None:
                rows[row["part"]], there[row["part"]] = row["rows"], row["amount"]
            else:
                refused[row["reason"]] += row["rows"]
        asked = asks(config, list(parts), there)
        given = granted(config, asked, there)
        ordered = _ordered(context, config, samples, given, rows, there)
        mixtures, counts = _mixed(ordered, given, list(parts))
        empty = [name for name in names if not counts[name]]
        if empty:
            raise RunError(
                f"mix: no row fits into the mixture {empty[0]}, which asks for too few "
                f"{config.unit}; ask for more"
            )
        mixtures = mixtures.withColumn("run_id", F.lit(run.run_id))
        lake.replace(mixtures, "mixtures", {"mixture": names})
        taken = ordered.where(F.col("copy") == 0).select(*KEY)
        run.kept = taken.count()
        if config.explain:
            lake.append(_explained(context, samples, taken), "rejects")
    refused["not_selected"] = sum(rows.values()) - run.kept
    run.rejected.update({reason: count for reason, count in refused.items() if count})
    short = sum(ask.amount for ask in asked) - sum(ask.amount for ask in given)
    run.metrics |= {"rows": float(counts.total()), "shortfall": float(short)}
    run.wrote("mixtures", "rejects")


def _samples(
    context: Context,
    config: MixConfig,
    parts: Mapping[str, Sequence[str]],
    version: str | None,
    scorers: Sequence[str],
    screening: str | None,
) -> DataFrame:
    """Every sample: `pool`, `sample_id`, the `part` that it is for, its `amount`, `subtask`, and
    the `reason` why it cannot be had, else null."""
    samples = context.pinned("samples")
    subtask = F.lit(None).cast("string")
    if config.subtask is not None:
        subtask = F.try_element_at("meta", F.lit(config.subtask))
    rows = samples.select(*KEY, F.size("query_ids").alias("turns"), subtask.alias("subtask"))
    pools = list(dict.fromkeys(pool for named in parts.values() for pool in named))
    reason = F.when(~F.col("pool").isin(*pools), "no_part")
    if screening is not None:
        left_out = screened(context, screening).select("sample_id", "left_out")
        rows = rows.join(left_out, "sample_id", "left")
        reason = F.coalesce(reason, "left_out")
    if config.selection is not None:
        chosen = _selected(context, "mix.selection", config.selection)
        rows = rows.join(chosen.withColumn("in_selection", F.lit(True)), KEY, "left")
        reason = F.coalesce(reason, F.when(F.col("in_selection").isNull(), "not_in_selection"))
    if config.dedupe == "pools":
        # Of the rows that could be had: a pool that is not mixed keeps nothing from one that is.
        own = first_pools(rows.where(reason.isNull()).select(*KEY), pools)
        rows = rows.withColumn("reason", reason)
        rows = rows.join(own.withColumn("own", F.lit(True)), KEY, "left")
        reason = F.coalesce("reason", F.when(F.col("own").isNull(), "other_pool"))
    if isinstance(config, TagsConfig):
        tags = context.pinned("tags").where(F.col("ontology_version") == F.lit(version))
        rows = rows.join(tags.select("sample_id", "tags"), "sample_id", "left")
        listed = F.array(*map(F.lit, parts))
        part = F.get(F.filter(listed, lambda tag: F.array_contains("tags", tag)), 0)
        reason = F.coalesce(reason, F.when(F.col("tags").isNull(), "untagged"))
        reason = F.coalesce(reason, F.when(part.isNull(), "no_part"))
    else:
        pairs = [F.lit(text) for name, named in parts.items() for p in named for text in (p, name)]
        part = F.try_element_at(F.create_map(*pairs), F.col("pool"))
    amount = F.lit(1).cast("long")
    if scorers:
        rows = rows.join(_lengths(context.pinned("scores"), scorers), "sample_id", "left")
        amount = F.when(F.col("scored") == F.col("turns") * len(set(scorers)), F.col("length"))
        reason = F.coalesce(reason, F.when(amount.isNull(), "unscored"))
    rows = rows.select(
        *KEY, part.alias("part"), amount.alias("amount"), "subtask", reason.alias("reason")
    )
    rows = context.stored("samples", rows)
    return rows if config.subtask is None else _capped(context, config, rows)


def _selected(context: Context, setting: str, name: str) -> DataFrame:
    """`pool` and `sample_id` of a selection's rows; RunError when it has none."""
    rows = context.pinned("selections").where(F.col("selection") == name)
    if rows.isEmpty():
        raise RunError(
            f"{setting}={name}: lake {context.lake.root} has no such selection; run the step "
            "select with select.name set to it"
        )
    return rows.select(*KEY)


def _shares(
    context: Context, selection: str, parts: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """How many rows of a selection are of each part that has any; RunError when none has."""
    rows = _selected(context, "mix.shares_of", selection)
    pools = {row["pool"]: row["count"] for row in rows.groupBy("pool").count().collect()}
    counts = {part: sum(pools.get(pool, 0) for pool in of) for part, of in parts.items()}
    shares = {part: float(count) for part, count in counts.items() if count}
    if not shares:
        raise RunError(
            f"mix.shares_of={selection}: its rows are of {', '.join(sorted(pools))}, and the parts "
            f"are of {', '.join(sorted(pool for of in parts.values() for pool in of))}"
        )
    return shares


def _lengths(scores: DataFrame, scorers: Sequence[str]) -> DataFrame:
    """`sample_id`, the sum of its scores (`length`) and their number (`scored`)."""
    named = scores.where(F.col("scorer").isin(*scorers))
    length = F.sum("value").cast("long").alias("length")
    return named.groupBy("sample_id").agg(length, F.count("*").alias("scored"))


def _capped(context: Context, config: MixConfig, rows: DataFrame) -> DataFrame:
    """Rows with the reason `over_cap` where their subtask has enough without them."""
    if rows.where(F.col("subtask").isNotNull()).isEmpty():
        raise RunError(
            f"mix.subtask={config.subtask}: no row has this key in samples.meta; name one that "
            "`tagsieve inspect samples` shows there"
        )
    free = rows.where(F.col("reason").isNull() & F.col("subtask").isNotNull())
    # An order of its own: by the one that mixtures take from, a row that was among the first of
    # its subtask would be among the first of its part, too.
    order = in_order(free, ["part", "subtask"], drawn(config.seed, F.lit("cap")))
    over = order.where(F.col("place") >= config.cap)
    over = over.select(*KEY, F.lit("over_cap").alias("over"))
    capped = rows.join(over, KEY, "left").withColumn("reason", F.coalesce("reason", "over"))
    return context.stored("capped", capped.drop("over"))


def _ordered(
    context: Context,
    config: MixConfig,
    samples: DataFrame,
    given: Sequence[Ask],
    rows: Mapping[str, int],
    there: Mapping[str, int],
) -> DataFrame:
    """What the mixtures take of each part: `part`, `pool`, `sample_id`, `copy`, its `place` (0
    first) in the part's order, `through`: the amount up to it.

    Every copy of a part, where more than one is needed, has an order of its own and follows the
    one before. `rows`, `there`: rows and amount of each part.
    """
    most = dict.fromkeys(rows, 0)
    for ask in given:
        most[ask.part] = max(most[ask.part], ask.amount)
    told = [
        (part, rows[part], there[part], -(-amount // there[part]), amount)
        for part, amount in most.items()
        if amount
    ]
    table = context.engines.spark.createDataFrame(
        told, "part string, rows long, total long, copies long, most long"
    )
    free = samples.where(F.col("reason").isNull()).join(F.broadcast(table), "part")
    copies = free.withColumn("copy", F.explode(F.expr("sequence(0L, copies - 1)")))
    order = in_order(copies, ["part", "copy"], drawn(config.seed, F.col("copy")))
    through = F.col("through") + F.col("copy") * F.col("total")
    order = order.withColumns(
        {"place": F.col("place") + F.col("copy") * F.col("rows"), "through": through}
    )
    order = order.where(F.col("through") <= F.col("most"))
    return context.stored("ordered", order.select("part", *KEY, "copy", "place", "through"))


def _mixed(
    ordered: DataFrame, given: Sequence[Ask], parts: Sequence[str]
) -> tuple[DataFrame, Counter[str]]:
    """The mixtures (`mixture`, `position`, `pool`, `sample_id`, `copy`, `part`), sorted, and the
    number of rows of each."""
    spark = ordered.sparkSession
    amounts = [(ask.mixture, ask.part, ask.amount) for ask in given]
    table = spark.createDataFrame(amounts, "mixture string, part string, most long")
    taken = ordered.join(F.broadcast(table), "part").where(F.col("through") <= F.col("most"))
    counted = {
        (row["mixture"], row["part"]): row["count"]
        for row in taken.groupBy("mixture", "part").count().collect()
    }
    counts: Counter[str] = Counter()
    for (mixture, _), count in counted.items():
        counts[mixture] += count
    place = {part: number for number, part in enumerate(parts)}
    shapes = [
        (
            mixture,
            part,
            count,
            [
                (other_count, int(place[other] < place[part]))
                for (of, other), other_count in counted.items()
                if of == mixture and other != part
            ],
        )
        for (mixture, part), count in counted.items()
    ]
    shape = spark.createDataFrame(
        shapes,
        "mixture string, part string, rows long, others array<struct<rows: long, first: long>>",
    )
    mixed = taken.join(F.broadcast(shape), ["mixture", "part"]).select(
        "mixture", interleaved().alias("position"), *KEY, "copy", "part"
    )
    mixed = mixed.repartitionByRange("mixture", "position")
    return mixed.sortWithinPartitions("mixture", "position"), counts


def _explained(context: Context, samples: DataFrame, taken: DataFrame) -> DataFrame:
    """Rows for `rejects`: every sample that is in no mixture, with its reason."""
    rows = samples.select(*KEY, "reason").join(taken, KEY, "left_anti")
    places = context.pinned("samples").select(*KEY, "source", "source_row")
    reason = F.coalesce("reason", F.lit("not_selected"))
    return rejected(context, rows.join(places, KEY).withColumn("reason", reason))
