"""The seven real pools through the main job: time and memory of each step, and the tag step
against the bare encoder.

    python benchmarks/pools.py            # about 126,000 rows; ../shared/data must be there

Reference: `SentenceEncoder.encode` over a sample of the same queries, with the same threads and
precision, measured right before and right after the run, in the actor's kind of process (a fresh
one). First checked: every ledger balances, the tags in the table equal those of the tagger called
directly, and a second run of the recipe makes no call of the encoder and writes no table but
`runs`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

import pyarrow as pa

import common
from tagsieve.console import Console, duration
from tagsieve.engines.context import Engines
from tagsieve.lake import Lake
from tagsieve.recipe import Recipe, load_recipe
from tagsieve.runner import run_steps, show_outcome

BARE_ROWS = 8_192
COMPARED = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bare", metavar="PARQUET", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="as of tagsieve run, such as lake=/big/disk")
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare_rate(options.bare)))
        return
    os.chdir(common.ROOT)
    recipe = load_recipe("benchmarks/pools.yaml", options.overrides)
    lake = Lake(recipe.lake)
    shutil.rmtree(recipe.lake, ignore_errors=True)
    shutil.rmtree(recipe.export.path, ignore_errors=True)
    console = Console()
    started = time.monotonic()
    engines = Engines(recipe.spark, recipe.ray)
    try:
        run_steps(recipe, recipe.steps[:1], console, engines)
        sample = sample_queries(lake, engines)
        before = bare_rate_in_a_process(sample)
        run_id = run_steps(recipe, recipe.steps[1:], console, engines)
        after = bare_rate_in_a_process(sample)
        compare_tags(recipe, lake, sample)
    finally:
        engines.close()
    show_outcome(recipe, console)
    first = check_ledgers(lake)
    versions = {name: lake.version(name) for name in lake.tables() if name != "runs"}
    again = second_run(recipe, console)
    assert versions == {name: lake.version(name) for name in versions}, "the second run wrote"
    tag = next(row for row in first if row["step"] == "tag" and row["run_id"] == run_id)
    rate = tag["metrics"]["rows_per_second"]
    bare = (before + after) / 2
    console.line(
        f"tag step {rate:,.0f} queries/s, bare encoder {bare:,.0f} ({before:,.0f} before, "
        f"{after:,.0f} after): {rate / bare:.1%}"
    )
    spent = sum(row["metrics"]["seconds"] for row in first)
    peak = max(row["metrics"]["peak_memory_mb"] for row in first)
    common.write(
        "pools",
        {
            "rows": first[0]["input"],
            "queries": tag["input"],
            "tag_queries_per_second": rate,
            "bare_encoder_queries_per_second": round(bare, 1),
            "tag_share_of_bare": round(rate / bare, 4),
            "steps": {
                row["step"]: {
                    "input": row["input"],
                    "seconds": row["metrics"]["seconds"],
                    "peak_memory_mb": row["metrics"]["peak_memory_mb"],
                }
                for row in first
            },
            "second_run_seconds": again,
            "second_run_model_calls": 0,
            "total_seconds": round(time.monotonic() - started, 1),
            "readme": [
                (
                    f"seven real pools, {first[0]['input']:,} rows, ingest to report",
                    f"{duration(spent)}, at most {peak / 1024:.1f} GB of memory",
                ),
                ("the same pools' tags", funnel(lake)),
                ("the same recipe again", f"{again:.0f} s, no call of the encoder"),
                (
                    "tag step against the bare encoder",
                    f"{rate:,.0f} of {bare:,.0f} queries/s ({rate / bare:.0%})",
                ),
            ],
        },
    )


def funnel(lake: Lake) -> str:
    """Distinct tags after each step of the ontology."""
    stages = lake.arrow("tag_funnel").sort_by("position").to_pylist()
    rules = lake.delta("ontology_rules")
    told = " > ".join(f"{row['stage']} {row['tags']:,}" for row in stages)
    return f"{told}; {0 if rules is None else rules.count():,} rules"


def sample_queries(lake: Lake, engines: Engines) -> str:
    """A Parquet file with `query_id` and `text` of the first `BARE_ROWS` queries by id."""
    import pyarrow.parquet as pq

    from tagsieve.engines.turns import distinct_queries

    queries = distinct_queries(lake.read(engines.spark, "samples"))
    found = queries.orderBy("query_id").limit(BARE_ROWS).toPandas()
    path = f"{lake.root}/bare.parquet"
    pq.write_table(pa.Table.from_pandas(found, preserve_index=False), path)
    return path


def bare_rate_in_a_process(sample: str) -> float:
    command = [sys.executable, __file__, "--bare", sample]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rate = float(json.loads(shown.splitlines()[-1]))
    print(f"bare encoder: {rate:,.0f} queries/s")
    return rate


def bare_rate(sample: str) -> float:
    """Queries per second of the encoder alone, on the threads that the actor has."""
    import pyarrow.parquet as pq

    from tagsieve.engines.encoders import SentenceEncoder, cpu_dtype, packaged_minilm

    texts = pq.read_table(sample)["text"].to_pylist()
    encoder = SentenceEncoder(packaged_minilm(), cpu_dtype(), os.cpu_count())
    encoder.encode(texts[:512])
    started = time.monotonic()
    for start in range(0, len(texts), 2048):
        encoder.encode(texts[start : start + 2048])
    return len(texts) / (time.monotonic() - started)


def compare_tags(recipe: Recipe, lake: Lake, sample: str) -> None:
    """The tags in the table are those of the tagger called directly."""
    import pyarrow.parquet as pq

    from tagsieve.tagging import tagger_fingerprint
    from tagsieve.tagging.memory import MemoryTagger

    batch = pq.read_table(sample).slice(0, COMPARED)
    tagger = tagger_fingerprint(recipe.tag)
    actor = MemoryTagger(recipe.tag, tagger, "direct", None)
    actor.start({})
    direct, _ = actor.run(batch)
    found = {
        row["query_id"]: row["tags"]
        for row in lake.arrow(
            "raw_tags",
            ["query_id", "tags"],
            [("query_id", "in", batch["query_id"].to_pylist()), ("tagger", "=", tagger)],
        ).to_pylist()
    }
    for row in direct.to_pylist():
        if row["failure"] is None:
            assert found[row["query_id"]] == row["tags"], row
    print(f"{len(found)} queries: the table has the tags of the tagger called directly")


def check_ledgers(lake: Lake) -> list[dict[str, Any]]:
    rows = lake.arrow("runs").sort_by("started").to_pylist(maps_as_pydicts="strict")
    for row in rows:
        lost = sum(row["rejected"].values()) + sum(row["quarantined"].values())
        assert row["status"] == "done", row
        assert row["input"] == row["kept"] + row["known"] + lost, row
    return rows


def second_run(recipe: Recipe, console: Console) -> float:
    started = time.monotonic()
    engines = Engines(recipe.spark, recipe.ray)
    try:
        run_id = run_steps(recipe, recipe.steps, console, engines)
    finally:
        engines.close()
    rows = [row for row in check_ledgers(Lake(recipe.lake)) if row["run_id"] == run_id]
    assert all(row["input"] == row["known"] for row in rows), rows
    assert not any(row["metrics"].get("model_calls") for row in rows), rows
    return round(time.monotonic() - started, 1)


if __name__ == "__main__":
    main()
