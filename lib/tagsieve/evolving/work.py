"""What a run of the step finds in the tables: what is made, what failed, what is still to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import Writer
from tagsieve.engines.quarantine import close_tried, quarantined


@dataclass(frozen=True)
class Work:
    """The tables as they are now, for one generator, one judge and the drawn seeds.

    `chains`: the columns of `with_chains`, a row for each seed. `generations`, `judgements`: the
    only writers of the generator's and the judge's rows; made before what is done is looked up.
    """

    context: Context
    generator: str
    judge: str
    generations: Writer
    judgements: Writer
    chains: DataFrame

    def generated(self) -> DataFrame:
        """`generation_id` and `text` of what the generator has made."""
        rows = self.context.lake.read(self.context.engines.spark, "generations")
        return rows.where(F.col("model") == self.generator).select("generation_id", "text")

    def judged(self) -> DataFrame:
        """`judgement_id` and `items` of what the judge has scored."""
        rows = self.context.lake.read(self.context.engines.spark, "judgements")
        return rows.where(F.col("judge") == self.judge).select("judgement_id", "items")

    def set_aside(self, reasons: Sequence[str] = ()) -> DataFrame:
        """`seed_id` of the seeds that have a part in quarantine, for any of `reasons` (none: for
        all)."""
        variants = quarantined(self.context, self.generator, "generation_id", reasons)
        groups = quarantined(self.context, self.judge, "judgement_id", reasons)
        unmade = _variants(self.chains).join(variants, "generation_id", "left_semi")
        unscored = self.chains.join(groups, "judgement_id", "left_semi")
        return unmade.select("seed_id").unionByName(unscored.select("seed_id")).distinct()

    def lacking(self) -> DataFrame:
        """The chains that have no judgement and no part in quarantine."""
        unscored = self.chains.join(self.judged(), "judgement_id", "left_anti")
        return unscored.join(self.set_aside(), "seed_id", "left_anti")

    def lacking_variants(self, chains: DataFrame, number: int) -> DataFrame:
        """What the generator is asked in round `number`: of the chains whose parent is there. One
        that failed has no variant, so it ends there."""
        asked = chains.select(
            "seed_id",
            "instruction",
            F.coalesce("response", "instruction").alias("text"),
            F.element_at("ids", number + 1).alias("generation_id"),
            F.element_at("ids", number).alias("parent_id"),
            F.element_at("operators", number).alias("operator"),
            F.lit(number).cast("long").alias("round"),
        ).join(self.generated(), "generation_id", "left_anti")
        if number == 1:
            return asked
        parents = self.generated().withColumnRenamed("generation_id", "parent_id")
        return asked.drop("text").join(parents, "parent_id")

    def lacking_judgements(self, chains: DataFrame) -> DataFrame:
        """What the judge is asked: of the chains whose variants are all there."""
        return self.groups(chains.join(self.judged(), "judgement_id", "left_anti"))

    def groups(self, chains: DataFrame) -> DataFrame:
        """`judgement_id`, `seed_id`, `instruction`, and `ids` and `texts` of all variants by round,
        of the chains whose variants are all there."""
        placed = chains.select("judgement_id", F.posexplode("ids").alias("round", "generation_id"))
        texts = (
            placed.join(self.generated(), "generation_id")
            .groupBy("judgement_id")
            .agg(F.array_sort(F.collect_list(F.struct("round", "text"))).alias("made"))
        )
        seed = F.array(F.coalesce("response", "instruction"))
        return (
            chains.join(texts, "judgement_id")
            .where(F.size("made") == F.size("ids") - 1)
            .select(
                "judgement_id",
                "seed_id",
                "instruction",
                "ids",
                F.concat(seed, F.col("made.text")).alias("texts"),
            )
        )

    def close(self, chains: DataFrame) -> None:
        """Close what lies in quarantine for parts of the chains that are there now, or that failed
        again in this run."""
        made = _variants(chains).join(self.generated(), "generation_id", "left_semi")
        scored = chains.join(self.judged(), "judgement_id", "left_semi")
        close_tried(self.context, self.generator, "generation_id", made)
        close_tried(self.context, self.judge, "judgement_id", scored)


def _variants(chains: DataFrame) -> DataFrame:
    """`seed_id` and `generation_id` of each variant."""
    variants = F.explode(F.slice("ids", 2, F.size("ids")))
    return chains.select("seed_id", variants.alias("generation_id"))
