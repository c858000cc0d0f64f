"""InsTag's algorithms over generated pools: at the paper's size, and at 10M and 100M rows.

    python benchmarks/selection.py paper            # 306,044 rows, 6,398 tags
    python benchmarks/selection.py scale            # 10M rows; --rows 100000000 for more

Tags have Zipf frequencies. Tags per row: 1 + the floor of exp(1.08 + 0.85 z), z normal, at most
40, of which those drawn twice count once: mean about 4.5 with a heavy tail, as in the paper (4.48).

paper: Algorithm 1 (N = 6,000, and N = 50,000 by its two forms) equals the sequential loop; coverage
and mean number of tags beside those of a random sample; Algorithm 2's ten subsets. scale: the whole
step, from Delta tables to a selection, N = 6,000 by passes and N = 1 % of the rows by one scan;
time, and the most memory of all processes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT / "tests"))

ROWS, TAGS, SIZE, SUBSETS = 306_044, 6_398, 6_000, 10
MANY = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("paper", "scale"), help="default: both")
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="selection-"))
    try:
        if options.what != "scale":
            common.write("selection_paper", paper(folder / "paper"))
        if options.what != "paper":
            name = f"selection_scale_{options.rows // 1_000_000}m"
            common.write(name, scale(folder / "scale", options.rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def generated(spark: Any, rows: int, tags: int = TAGS, seed: int = 7) -> Any:
    """`sample_id`, `tags`; the same for any number of partitions."""
    from pyspark.sql import functions as F

    def uniform(*parts: Any) -> Any:
        return (F.pmod(F.xxhash64(*parts, F.lit(seed)), F.lit(2**40)) + 0.5) / F.lit(2.0**40)

    normal = F.sqrt(-2 * F.log(uniform("id", F.lit("a")))) * F.cos(
        F.lit(6.283185307179586) * uniform("id", F.lit("b"))
    )
    count = F.least(F.lit(40), 1 + F.floor(F.exp(F.lit(1.08) + F.lit(0.85) * normal))).cast("int")
    drawn = F.transform(
        F.sequence(F.lit(1), count),
        # Log-uniform places have Zipf's frequencies.
        lambda n: F.floor(F.pow(F.lit(float(tags + 1)), uniform("id", F.lit("tag"), n)) - 1).cast(
            "int"
        ),
    )
    names = F.transform(
        F.array_distinct(drawn), lambda n: F.concat(F.lit("tag "), n.cast("string"))
    )
    return spark.range(rows).select(F.md5(F.col("id").cast("string")).alias("sample_id"),
                                    names.alias("tags"))  # fmt: skip


def put_pool(lake: Any, spark: Any, rows: int) -> None:
    """`samples` and `tags` of a generated pool."""
    from pyspark.sql import functions as F

    from tagsieve.lake import TABLES
    from tagsieve.selection.outcome import in_schema

    made = generated(spark, rows)
    version, one = F.lit("v1"), F.array(F.lit("q"))
    samples = made.select(F.lit("p").alias("pool"), "sample_id", one.alias("query_ids"))
    tags = made.select("sample_id", "tags", F.lit("t").alias("tagger"),
                       version.alias("ontology_version"))  # fmt: skip
    lake.append(in_schema(samples, TABLES["samples"].schema), "samples")
    lake.append(in_schema(tags, TABLES["tags"].schema), "tags")


class Steps:
    """Select steps over one lake, with the engines of this process."""

    def __init__(self, folder: Path) -> None:
        from tagsieve.engines.config import RayConfig, SparkConfig
        from tagsieve.engines.context import Engines
        from tagsieve.lake import Lake

        self.lake = Lake(str(folder / "lake"))
        self.engines = Engines(SparkConfig(driver_memory="6g"), RayConfig())

    def select(self, **settings: Any) -> tuple[float, Any]:
        """Seconds of a selection, and its line of the ledger."""
        from selected import select_config
        from tagsieve.console import Console
        from tagsieve.engines.context import Context
        from tagsieve.ledger import record_step
        from tagsieve.selection import Sources, select

        started = time.monotonic()
        with record_step(self.lake, f"r-{settings['name']}", "select", "{}") as run:
            context = Context(self.lake, self.engines, run, Console())
            select(context, select_config(settings), Sources("v1"), [])
        self.lake.drop_work(run.run_id)
        return round(time.monotonic() - started, 1), run

    def told(self, name: str, tags_of: dict[str, list[str]]) -> dict[str, float]:
        """Rows, tag coverage and mean number of tags of a selection."""
        ids = self.ids(name)
        covered = {tag for key in ids for tag in tags_of[key]}
        everything = {tag for tags in tags_of.values() for tag in tags}
        mean = sum(len(tags_of[key]) for key in ids) / len(ids)
        return {
            "rows": len(ids),
            "coverage": round(len(covered) / len(everything), 4),
            "mean_tags": round(mean, 2),
        }

    def ids(self, name: str) -> list[str]:
        """A selection's sample ids by rank."""
        rows = self.lake.arrow("selections", filters=[("selection", "=", name)]).sort_by("rank")
        found: list[str] = rows["sample_id"].to_pylist()
        return found


def paper(folder: Path) -> dict[str, Any]:
    from parity.complexity_first import complexity_first as sequential

    steps = Steps(folder)
    try:
        put_pool(steps.lake, steps.engines.spark, ROWS)
        table = steps.lake.arrow("tags", ["sample_id", "tags"])
        tags_of = dict(zip(table["sample_id"].to_pylist(), table["tags"].to_pylist(), strict=True))
        rows = [("p", key, tags) for key, tags in tags_of.items()]
        seconds = {}
        for name, size in (("few", SIZE), ("many", MANY)):
            seconds[name], _ = steps.select(name=name, strategy="complexity_first", size=size)
        started = time.monotonic()
        expected = [key for _, key, _ in sequential(rows, MANY)]
        seconds["loop"] = round(time.monotonic() - started, 1)
        # A selection is the beginning of a larger one.
        assert steps.ids("few") == expected[:SIZE], "few: not the rows of the loop"
        assert steps.ids("many") == expected, "many: not the rows of the loop"
        steps.select(name="random", strategy="random", size=SIZE)
        subsets: list[str] = []
        for number in range(1, SUBSETS + 1):
            settings = {"strategy": "complexity_first", "size": SIZE, "without": list(subsets)}
            steps.select(name=f"subset-{number}", **settings)
            subsets.append(f"subset-{number}")
        told = {name: steps.told(name, tags_of) for name in ("few", "random", *subsets)}
        whole = sum(map(len, tags_of.values())) / len(tags_of)
    finally:
        steps.engines.close()
    means = [told[name]["mean_tags"] for name in subsets]
    assert means == sorted(means, reverse=True), f"the subsets' means do not fall: {means}"
    few, drawn = told["few"], told["random"]
    return {
        "rows": ROWS,
        "tags": len({tag for tags in tags_of.values() for tag in tags}),
        "mean_tags": round(whole, 2),
        "seconds": seconds,
        "selections": told,
        "readme": [
            (
                f"Algorithm 1, {ROWS:,} generated rows, N = {SIZE:,}: coverage and mean tags "
                "(at random)",
                f"{few['coverage']:.1%}, {few['mean_tags']} ({drawn['coverage']:.1%}, "
                f"{drawn['mean_tags']}); {seconds['few']:.0f} s; rows equal to the loop's",
            ),
            (
                f"Algorithm 2, ten subsets of {SIZE:,}: mean tags",
                f"{means[0]} falling to {means[-1]}",
            ),
        ],
    }


def scale(folder: Path, rows: int) -> dict[str, Any]:
    steps = Steps(folder)
    found = {}
    try:
        put_pool(steps.lake, steps.engines.spark, rows)
        for name, size in (("passes", SIZE), ("scan", rows // 100)):
            seconds, run = steps.select(name=name, strategy="complexity_first", size=size)
            found[name] = {
                "size": size,
                "kept": run.kept,
                "seconds": seconds,
                "peak_gb": round(run.metrics["peak_memory_mb"] / 1024, 1),
            }
            print(f"  {name}: {found[name]}", flush=True)
    finally:
        steps.engines.close()
    told = "; ".join(
        f"N = {each['size']:,}: {each['seconds']:.0f} s, at most {each['peak_gb']} GB"
        for each in found.values()
    )
    return {"rows": rows, **found, "readme": [(f"Algorithm 1, {rows:,} generated rows", told)]}


if __name__ == "__main__":
    main()
