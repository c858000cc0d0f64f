"""The ontology's steps on generated raw tags: time, growth, memory, truth, references.

    python benchmarks/ontology.py scale        # 1M, 10M and 100M occurrences, 20 minutes on 2 cores
    python benchmarks/ontology.py semantic     # 200,000 distinct tags
    python benchmarks/ontology.py association  # 1M queries
    python benchmarks/ontology.py truth        # 10M occurrences
    python benchmarks/ontology.py update       # 10M occurrences, and 1 % more
    python benchmarks/ontology.py funnel       # ../shared/data's tags

scale: frequency, rule and apply (the tags of every query), each size in a process of its own; at
1M and 10M occurrences two references in the same run: pandas with NLTK for each occurrence, and
for each distinct tag. The rows are asserted equal first. association: MLlib's FP-Growth alone
beside pair counting on the same baskets, the rules with one antecedent asserted equal. truth:
which pairs of raw tags become one tag, against the concepts that they were made from. update: what
one more query in a hundred costs. funnel: real tags. Results in results/ontology_*.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import common

SIZES = (1_000_000, 10_000_000, 100_000_000)
REFERENCE_SIZES = (1_000_000, 10_000_000)
MIN_COUNT = 20
SEMANTIC_TAGS = 200_000
PAIR_QUERIES = 1_000_000
TRUTH_SIZE = 10_000_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, size = options.child
        (what,) = options.what
        print("RESULT " + json.dumps(CHILDREN[what](Path(folder), int(size))))
        return
    for what in options.what:
        folder = Path(tempfile.mkdtemp(prefix="ontology-"))
        try:
            figures = BENCHMARKS[what](folder, options.sizes)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        common.write(f"ontology_{what}", figures)


def child(what: str, folder: Path, size: int) -> dict[str, Any]:
    """One size in a process of its own."""
    result = common.child(__file__, what, "--child", str(folder), str(size))
    print(f"{size:,}: {result}", flush=True)
    return result


@contextmanager
def engines(driver_memory: str = "4g") -> Iterator[Any]:
    from tagsieve.engines.config import RayConfig, SparkConfig
    from tagsieve.engines.context import Engines

    started = Engines(SparkConfig(driver_memory=driver_memory), RayConfig(object_store_gb=1.0))
    try:
        started.spark.range(1).count()
        yield started
    finally:
        started.close()


def timed(seconds: dict[str, float], name: str, function: Callable[[], Any]) -> Any:
    started = time.monotonic()
    result = function()
    seconds[name] = round(time.monotonic() - started, 2)
    return result


def stored(spark: Any, frame: Any, path: Path) -> Any:
    frame.write.mode("overwrite").parquet(str(path))
    return spark.read.schema(frame.schema).parquet(str(path))


# --- scale --------------------------------------------------------------------------------------


def scale(folder: Path, sizes: list[int] | None) -> dict[str, Any]:
    found = {size: child("scale", folder, size) for size in sizes or SIZES}
    growth = {}
    listed = sorted(found)
    for small, large in itertools.pairwise(listed):
        times = found[large]["total"] / found[small]["total"]
        growth[f"{small} to {large}"] = round(times, 2)
    largest = found[listed[-1]]
    rows = [
        (
            f"ontology: frequency, rule and apply at {largest['occurrences']:,} occurrences",
            f"{largest['total']:,.0f} s, at most {largest['peak_gb']:.1f} GB",
        )
    ]
    for result in found.values():
        for name, told in result.get("references", {}).items():
            rows.append(
                (f"the same at {result['occurrences']:,} against {name}", f"{told['times']}x")
            )
    return {"sizes": {str(k): v for k, v in found.items()}, "growth": growth, "readme": rows}


def scale_child(folder: Path, size: int) -> dict[str, Any]:
    from pyspark.sql import functions as F

    from generated_tags import generate
    from tagsieve.ledger import PeakMemory
    from tagsieve.ontology.config import RuleConfig
    from tagsieve.ontology.normalization import (
        first_rows,
        frequency_step,
        query_tags,
        rule_step,
        tag_counts,
    )

    seconds: dict[str, float] = {}
    part = folder / str(size)
    with engines() as started:
        spark = started.spark
        made = generate(spark, size)
        raw_tags = stored(spark, made.raw_tags, part / "raw_tags")
        samples = raw_tags.select(
            F.col("query_id").alias("sample_id"), F.array("query_id").alias("query_ids")
        )
        occurrences = raw_tags.agg(F.sum(F.size("tags"))).first()[0]
        with PeakMemory() as memory:
            rows = timed(
                seconds,
                "count",
                lambda: stored(
                    spark, first_rows(tag_counts(raw_tags, samples, "queries")), part / "counts"
                ),
            )
            uses = rows.select("tag", F.col("count").alias("uses"))
            rows = timed(
                seconds,
                "frequency",
                lambda: stored(spark, frequency_step(rows, uses, MIN_COUNT), part / "frequency"),
            )
            rows = timed(
                seconds, "rule", lambda: stored(spark, rule_step(rows, RuleConfig()), part / "rule")
            )
            tagged = timed(
                seconds, "apply", lambda: stored(spark, query_tags(raw_tags, rows), part / "tags")
            )
        result = {
            "occurrences": occurrences,
            "queries": raw_tags.count(),
            "raw_tags": rows.count(),
            "tags": rows.select("tag").distinct().count() - 1,
            "seconds": seconds,
            "total": round(sum(seconds.values()), 2),
            "peak_gb": round(memory.stop() / 2**30, 2),
            "python_gb": round(psutil.Process().memory_info().rss / 2**30, 2),
        }
        expected = (
            {row["raw_tag"]: row["tag"] for row in rows.collect()} if references(size) else {}
        )
        tagged_rows = tagged.count()
        assert tagged_rows == result["queries"]
    if references(size):
        result["references"] = {
            name: reference(part / "raw_tags", expected, each, result["total"])
            for name, each in (("pandas, each occurrence", True), ("pandas, distinct tags", False))
        }
    shutil.rmtree(part)
    return result


def references(size: int) -> bool:
    return size in REFERENCE_SIZES


def reference(
    path: Path, expected: dict[str, str | None], each: bool, ours: float
) -> dict[str, Any]:
    """Frequency, rule and apply with pandas and NLTK, stemming each occurrence or distinct tag."""
    import pandas as pd
    import pyarrow.parquet as pq
    from nltk.stem.porter import PorterStemmer

    started = time.monotonic()
    table = pq.read_table(path)
    frame = table.to_pandas()
    frame["tag"] = [[item["tag"] for item in tags] for tags in frame.pop("tags")]
    flat = frame.explode("tag").drop_duplicates()
    counts = flat["tag"].value_counts()
    kept = flat[flat["tag"].map(counts) >= MIN_COUNT].reset_index(drop=True)
    porter = PorterStemmer()
    tags = kept["tag"] if each else pd.Series(kept["tag"].unique())
    words = [re.findall(r"[^\W_]+", tag.lower()) for tag in tags]
    forms = pd.DataFrame(
        {
            "surface": [" ".join(each) for each in words],
            "stem": [" ".join(map(porter.stem, each)) for each in words],
        },
        index=kept.index if each else tags,
    )
    kept = kept.join(forms) if each else kept.join(forms, on="tag")
    uses = kept.groupby(["stem", "surface"]).size().reset_index(name="uses")
    uses["length"] = uses["surface"].str.len()
    uses = uses.sort_values(
        ["stem", "uses", "length", "surface"], ascending=[True, False, True, True]
    )
    display = uses.drop_duplicates("stem").set_index("stem")["surface"]
    kept["final"] = kept["stem"].map(display)
    tags = kept[["query_id", "final"]].drop_duplicates().groupby("query_id")["final"].agg(sorted)
    seconds = time.monotonic() - started
    found = kept.drop_duplicates("tag").set_index("tag")["final"].to_dict()
    assert found == {raw: tag for raw, tag in expected.items() if tag is not None}
    assert len(tags) <= len(frame)
    return {"seconds": round(seconds, 1), "times": round(seconds / ours, 2)}


# --- semantic -----------------------------------------------------------------------------------


def semantic(folder: Path, sizes: list[int] | None) -> dict[str, Any]:
    found = [child("semantic", folder, size) for size in sizes or [20_000, SEMANTIC_TAGS]]
    last = found[-1]
    told = (
        f"{last['seconds']['encode']:,.0f} s to encode, {last['seconds']['group']:,.0f} s to group"
    )
    row = (f"semantic step on {last['tags']:,} distinct tags", f"{told}, {last['peak_gb']:.1f} GB")
    return {"sizes": found, "readme": [row]}


def semantic_child(folder: Path, size: int) -> dict[str, Any]:
    import pyarrow as pa

    from generated_tags import concept_names
    from tagsieve.console import Console
    from tagsieve.lake import Lake
    from tagsieve.ledger import PeakMemory
    from tagsieve.ontology.config import SemanticConfig
    from tagsieve.ontology.semantic import group_labels, tag_vectors

    names = sorted(
        f"{name}{end}"
        for name in concept_names(-(-size // 5))
        for end in ("", " a", " b", " c", " d")
    )[:size]
    lake, console = Lake(str(folder / f"lake-{size}")), Console()
    config, seconds = SemanticConfig(), {}
    tags = pa.array(names)
    with engines("1g") as started, PeakMemory() as memory:
        started.ray()
        vectors = timed(
            seconds, "encode", lambda: tag_vectors(lake, tags, config, started, console)
        )
        ray_config = started.ray_config
        labels = timed(seconds, "group", lambda: group_labels(vectors, config, ray_config, console))
    return {
        "tags": len(tags),
        "clusters": int(labels.max()) + 1,
        "noise": int((labels < 0).sum()),
        "seconds": seconds,
        "peak_gb": round(memory.stop() / 2**30, 2),
    }


# --- truth --------------------------------------------------------------------------------------


def truth(folder: Path, sizes: list[int] | None) -> dict[str, Any]:
    (found,) = [child("truth", folder, size) for size in sizes or [TRUTH_SIZE]]
    told = [
        f"{name} {row['precision']:.1%} / {row['recall']:.1%}" for name, row in found["by"].items()
    ]
    row = (
        "generated raw tags (of made words, which MiniLM hardly tells apart) that become one tag: "
        f"pairs, precision / recall, {found['occurrences']:,} occurrences",
        "; ".join(told),
    )
    return {**found, "readme": [row]}


def truth_child(folder: Path, size: int) -> dict[str, Any]:
    """The step as a run takes it, less the rules, against the concepts that the tags were made
    from."""
    from pyspark.sql import functions as F

    from generated_tags import generate
    from tagsieve.lake import Lake
    from tagsieve.ontology import NormalizeConfig, find_version

    lake = Lake(str(folder / "lake"))
    found: dict[str, Any] = {}
    with engines() as started:
        spark = started.spark
        made = generate(spark, size)
        append(lake, stored(spark, made.raw_tags, folder / "raw_tags"))
        truth = made.truth.distinct().cache()
        for name, eps in (("rule", None), *((f"eps {eps}", eps) for eps in (0.05, 0.1, 0.15))):
            settings = (
                {"steps": ["frequency", "rule"]} if eps is None else {"semantic": {"eps": eps}}
            )
            config = NormalizeConfig.model_validate(settings)
            metrics = normalized(lake, started, config, name)
            version = find_version(lake, "t", config)
            rows = lake.read(spark, "ontology").where(F.col("version") == version)
            kept = rows.where("tag IS NOT NULL").join(truth, "raw_tag").cache()
            pairs = {
                key: kept.groupBy(*key.split("+"))
                .count()
                .agg(F.sum(F.expr("count * (count - 1)")))
                .first()[0]
                for key in ("tag", "concept", "tag+concept")
            }
            found[name] = {
                "precision": pairs["tag+concept"] / pairs["tag"],
                "recall": pairs["tag+concept"] / pairs["concept"],
                "raw_tags": kept.count(),
                "tags": kept.select("tag").distinct().count(),
                "seconds": metrics["seconds"],
                "peak_mb": metrics["peak_memory_mb"],
            }
            print(name, found[name], flush=True)
        occurrences = lake.read(spark, "raw_tags").agg(F.sum(F.size("tags"))).first()[0]
    return {"occurrences": occurrences, "by": found}


def append(lake: Any, raw_tags: Any) -> None:
    """Append `query_id`, `tags` to a lake's raw tags, and a conversation for each query."""
    from pyspark.sql import functions as F

    empty = ("flags", "confidence", "prompt_tokens", "output_tokens")
    told = {"tagger": F.lit("t"), "run_id": F.lit("r")}
    lake.append(raw_tags.withColumns(told | dict.fromkeys(empty, F.lit(None))), "raw_tags")
    samples = raw_tags.select(
        F.lit("pool").alias("pool"),
        F.col("query_id").alias("sample_id"),
        F.array("query_id").alias("query_ids"),
        F.lit("r").alias("run_id"),
    )
    empty = ("turns", "lang", "meta", "source", "source_row")
    lake.append(samples.withColumns(dict.fromkeys(empty, F.lit(None))), "samples")


def normalized(lake: Any, started: Any, config: Any, run_id: str) -> dict[str, float]:
    """Run the normalize step; gives its metrics."""
    from tagsieve.console import Console
    from tagsieve.engines.context import Context
    from tagsieve.ledger import record_step
    from tagsieve.ontology import normalize

    with record_step(lake, run_id, "normalize", "{}") as run:
        normalize(Context(lake, started, run, Console()), "t", config)
    lake.drop_work(run_id)
    metrics: dict[str, float] = run.metrics
    return metrics


# --- update -------------------------------------------------------------------------------------


def update(folder: Path, sizes: list[int] | None) -> dict[str, Any]:
    (found,) = [child("update", folder, size) for size in sizes or [TRUTH_SIZE]]
    row = (
        f"{found['new_queries']:,} new queries join an ontology of {found['queries']:,}",
        f"{found['update']['seconds']:.0f} s and {found['update']['mb']:.1f} MB, the build "
        f"{found['build']['seconds']:.0f} s and {found['build']['mb']:.1f} MB",
    )
    return {**found, "readme": [row]}


def update_child(folder: Path, size: int) -> dict[str, Any]:
    """One query in a hundred comes after the build; all four steps, rules by pairs."""
    from pyspark.sql import functions as F

    from generated_tags import generate
    from tagsieve.lake import Lake
    from tagsieve.ontology import NormalizeConfig

    lake, found = Lake(str(folder / "lake")), {}
    config = NormalizeConfig.model_validate({"association": {"method": "pairs"}})
    written: set[str] = set()
    with engines() as started:
        spark = started.spark
        raw_tags = stored(spark, generate(spark, size).raw_tags, folder / "raw_tags")
        late = F.pmod(F.xxhash64("query_id"), F.lit(100)) == 0
        parts = {"build": raw_tags.where(~late), "update": raw_tags.where(late)}
        for name, part in parts.items():
            append(lake, part)
            metrics = normalized(lake, started, config, name)
            files = {
                f"{table}/{file.path}": file.size
                for table in ("ontology", "ontology_updates", "ontology_rules", "tags")
                if lake.version(table) is not None
                for file in lake.files(table)
            }
            new = {path: size for path, size in files.items() if path not in written}
            assert written <= files.keys(), "the update wrote a file of the build again"
            written = set(files)
            found[name] = {
                "seconds": metrics["seconds"],
                "mb": round(sum(new.values()) / 2**20, 2),
                "files": len(new),
                "peak_mb": metrics["peak_memory_mb"],
            }
        assert len(lake.arrow("ontology_versions")) == 1
        queries = {name: part.count() for name, part in parts.items()}
    return {**found, "queries": queries["build"], "new_queries": queries["update"]}


# --- funnel -------------------------------------------------------------------------------------


def funnel(folder: Path, _sizes: list[int] | None) -> dict[str, Any]:
    """Tags of a large language model on 5,600 real queries."""
    import gzip

    import pyarrow as pa

    from tagsieve.lake import Lake
    from tagsieve.ontology import NormalizeConfig
    from tagsieve.records import query_id

    with gzip.open(common.DATA / "tags" / "llm_tags.jsonl.gz", "rt", encoding="utf-8") as lines:
        answers = {query_id(row["query"]): row["tags"] for row in map(json.loads, lines)}
    table = pa.table({"query_id": list(answers), "tags": list(answers.values())})
    lake = Lake(str(folder / "lake"))
    with engines() as started:
        append(lake, started.spark.createDataFrame(table))
        config = {"min_count": 3, "association": {"min_support": 4}}
        metrics = normalized(lake, started, NormalizeConfig.model_validate(config), "funnel")
    stages = lake.arrow("tag_funnel").sort_by("position").to_pylist()
    told = " > ".join(f"{row['stage']} {row['tags']:,}" for row in stages)
    rules = int(metrics["rules"])
    row = (
        f"funnel of {len(answers):,} queries tagged by a large language model, alpha 3, support 4",
        f"{told}; {rules:,} rules",
    )
    return {"stages": stages, "rules": rules, "readme": [row]}


# --- association --------------------------------------------------------------------------------


def association(folder: Path, sizes: list[int] | None) -> dict[str, Any]:
    found = [child("association", folder, size) for size in sizes or [PAIR_QUERIES]]
    last = found[-1]
    row = (
        f"rules by pairs against MLlib's FP-Growth alone, {last['queries']:,} queries",
        f"{last['seconds']['pairs']:.1f} s against {last['seconds']['fpgrowth']:.1f} s "
        f"({last['times']}x)",
    )
    return {"sizes": found, "readme": [row]}


def association_child(folder: Path, size: int) -> dict[str, Any]:
    from pyspark.sql import functions as F

    from generated_tags import generate
    from tagsieve.console import Console
    from tagsieve.ontology.association import frequent_items, item_baskets, mine
    from tagsieve.ontology.config import AssociationConfig

    seconds: dict[str, float] = {}
    with engines() as started:
        spark = started.spark
        made = generate(spark, round(4.5 * size), concepts=5_000)
        of_concepts = (
            made.raw_tags.select("query_id", F.explode("tags.tag").alias("raw_tag"))
            .join(F.broadcast(made.truth.distinct()), "raw_tag")
            .groupBy("query_id")
            .agg(F.collect_set("concept").alias("tags"))
        )
        baskets = stored(spark, of_concepts, folder / "baskets")
        config = {name: AssociationConfig(method=name) for name in ("fpgrowth", "pairs")}
        items = stored(spark, frequent_items(baskets, 40), folder / "items")
        numbered = stored(spark, item_baskets(baskets, items), folder / "numbered").cache()
        queries = numbered.count()
        rules = {
            name: timed(
                seconds,
                name,
                lambda name=name: mine(numbered, items, queries, config[name], Console()).collect(),
            )
            for name in ("pairs", "fpgrowth")
        }
    single = {
        name: {
            (row["antecedent"][0], row["consequent"]): (row["support"], row["confidence"])
            for row in found
            if len(row["antecedent"]) == 1
        }
        for name, found in rules.items()
    }
    assert single["pairs"] == single["fpgrowth"]
    return {
        "queries": queries,
        "rules": len(rules["fpgrowth"]),
        "single": len(single["pairs"]),
        "seconds": seconds,
        "times": round(seconds["fpgrowth"] / seconds["pairs"], 1),
    }


BENCHMARKS = {
    "scale": scale, "semantic": semantic, "association": association, "truth": truth,
    "update": update, "funnel": funnel,
}  # fmt: skip
CHILDREN = {
    "scale": scale_child, "semantic": semantic_child, "association": association_child,
    "truth": truth_child, "update": update_child,
}  # fmt: skip


if __name__ == "__main__":
    main()
