"""Judging pairs at an endpoint that takes 50 ms for an answer, against one request at a time.

`python benchmarks/judging.py [--pairs N]`: real Alpaca conversations in clusters, each pair in both
orders by the step judge; beside it the loop that the papers' code has, which sends one request and
waits for its answer, over the first of the same prompts. The endpoint's scores are a function of
the prompt, so the judgements of both are asserted to be equal first.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import common

ANSWER_SECONDS = 0.05
PAIRS = 10_000
LOOP = 400
CONCURRENCY = 256
CLUSTERING = "tags-v1"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=PAIRS)
    options.add_argument("--child", nargs=2, metavar=("MEASUREMENT", "FOLDER"))
    given = options.parse_args()
    if given.child:
        measured = {"endpoint": endpoint, "step": step, "loop": loop}[given.child[0]]
        print(f"RESULT {json.dumps(measured(Path(given.child[1])))}")
        return
    with tempfile.TemporaryDirectory(prefix="tagsieve-bench-") as name:
        common.write("judging", benchmark(Path(name), given.pairs))


def benchmark(folder: Path, pairs: int) -> dict[str, Any]:
    """Both, and whether they say the same."""
    make_lake(folder, pairs)
    with common.serving(__file__, folder):
        print(f"{pairs:,} pairs, in both orders, by the step", flush=True)
        ours = common.child(__file__, "--child", "step", str(folder))
        print(f"{LOOP} of the same prompts, one at a time", flush=True)
        theirs = common.child(__file__, "--child", "loop", str(folder))
    ratio = ours["per_second"] / theirs["per_second"]
    whole = ours["judgements"] / ours["seconds"] / theirs["per_second"]
    print(f"{ratio:.0f} times as many a second; with Spark and the engines' start {whole:.0f}")
    return {
        "pairs": pairs,
        "concurrency": CONCURRENCY,
        "answer_seconds": ANSWER_SECONDS,
        "step": ours,
        "loop": theirs,
        "ratio": round(ratio, 1),
        "ratio_whole": round(whole, 1),
        "readme": [
            (
                f"judging {pairs:,} pairs in both orders at an endpoint of 50 ms, against one "
                "request at a time",
                f"{ours['per_second']:,.0f} judgements/s, {ratio:.0f} times as many (the whole "
                f"step, {ours['seconds']:.0f} s: {whole:.0f} times)",
            )
        ],
    }


def make_lake(folder: Path, pairs: int) -> None:
    """Alpaca's first conversations, 200 in a cluster, so that each has one partner."""
    from tagsieve import records
    from tagsieve.lake import Lake, rows_table

    rows: dict[str, list[tuple[str, str]]] = {}
    with gzip.open(common.DATA / "pools" / "alpaca.jsonl.gz", "rt") as lines:
        for line in lines:
            row = json.loads(line)
            asked = f"{row['instruction']} {row['input']}".strip()
            turns = [("user", asked), ("assistant", row["output"])]
            rows[records.sample_id(turns)] = turns
            if len(rows) == 2 * pairs:
                break
    lake = Lake(str(folder / "lake"))
    samples = [
        {
            "pool": "alpaca",
            "sample_id": key,
            "turns": [{"role": role, "content": text} for role, text in turns],
            "query_ids": records.query_ids(turns),
            "source": "alpaca",
            "source_row": number,
            "run_id": "made",
        }
        for number, (key, turns) in enumerate(rows.items())
    ]
    clusters = [
        {"clustering": CLUSTERING, "sample_id": key, "cluster": number // 200}
        for number, key in enumerate(rows)
    ]
    for name, made in (("samples", samples), ("clusters", clusters)):
        lake.append_once(name, rows_table(name, made), "made", 1)


def endpoint(folder: Path) -> dict[str, Any]:
    """Answers every chat after `ANSWER_SECONDS`, until it is ended."""
    from stub_endpoint import completion
    from stub_judge import judge_of

    judge = judge_of(7)

    def reply(body: bytes) -> bytes:
        return json.dumps(completion(judge(json.loads(body)["messages"][-1]["content"]))).encode()

    common.serve_chats(folder, ANSWER_SECONDS, reply)
    return {}


def step(folder: Path) -> dict[str, Any]:
    """The step judge, from its start to its last commit."""
    from tagsieve.config import validate
    from tagsieve.console import Console
    from tagsieve.engines.context import Context, Engines
    from tagsieve.judging import PairSources, judge, task_of
    from tagsieve.judging.config import JudgePairsConfig
    from tagsieve.lake import Lake
    from tagsieve.ledger import record_step

    url = (folder / "url").read_text()
    engine = {"kind": "http", "base_url": url, "model": "stub", "concurrency": CONCURRENCY}
    config = validate(JudgePairsConfig, {"engine": engine}, "benchmark")
    lake, engines = Lake(str(folder / "lake")), Engines()
    with record_step(lake, "bench", "judge", "{}") as run:
        judge(Context(lake, engines, run, Console()), task_of(config, PairSources(CLUSTERING)))
    engines.close()
    return {
        "judgements": run.kept,
        "seconds": run.metrics["seconds"],
        "per_second": run.metrics["rows_per_second"],
        "engine_start_seconds": run.metrics["engine_start_seconds"],
        "peak_memory_mb": run.metrics["peak_memory_mb"],
    }


def loop(folder: Path) -> dict[str, Any]:
    """One request at a time, of the first judgements of the step, which must say the same."""
    from openai import OpenAI

    from tagsieve.engines.llm.prompts import load_prompt
    from tagsieve.lake import Lake

    lake = Lake(str(folder / "lake"))
    turns = {
        row["sample_id"]: "\n\n".join(
            f"{turn['role'].capitalize()}: {turn['content']}" for turn in row["turns"]
        )
        for row in lake.arrow("samples").to_pylist()
    }
    rows = lake.arrow("judgements").slice(0, LOOP).to_pylist()
    template = load_prompt("judge_pair", ("first", "second")).given({"high": "100"})
    client = OpenAI(base_url=(folder / "url").read_text(), api_key="none")
    texts = []
    started = time.monotonic()
    for row in rows:
        first, second = (turns[item["id"]] for item in row["items"])
        done = client.chat.completions.create(
            model="stub",
            messages=template.render({"first": first, "second": second}),
            max_tokens=512,
            temperature=0.0,
        )
        texts.append(done.choices[0].message.content)
    seconds = time.monotonic() - started
    assert texts == [row["raw"] for row in rows]
    for text, row in zip(texts, rows, strict=True):
        told = json.loads(text)
        assert [told["first"], told["second"]] == [item["score"] for item in row["items"]]
    return {"seconds": round(seconds, 2), "per_second": round(len(rows) / seconds, 2)}


if __name__ == "__main__":
    main()
