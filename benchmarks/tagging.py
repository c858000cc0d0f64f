"""The tag step against the bare engine: vLLM, HTTP, and the driver's memory.

    python benchmarks/tagging.py vllm       # 5 pairs of at least a minute each, about 25 minutes
    python benchmarks/tagging.py http       # against a local endpoint, about 5 minutes
    python benchmarks/tagging.py memory     # the driver's memory from 10K to 1M queries

vllm: rows per second of the whole step (Delta to committed Delta, Spark's anti-join among it)
beside `LLM.generate` on the same prompts with the same engine settings, each in a process of its
own, one after the other, start-up left out of both. First checked: the rows in the table are what
the bare engine wrote. The model is a tiny Llama, taught to answer with a list of tags, so that the
engine takes as little as it can and everything around it shows. `--ray-data-llm` runs
ray.data.llm on the same prompts, too.

http: the step beside `asyncio` with the same client, concurrency and requests, against an endpoint
in a process of its own that answers after 50 ms.

memory: resident memory of the driver's Python process with an engine that answers at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT / "tests"))

PAIRS = 5
VLLM_QUERIES = 30_000
HTTP_QUERIES = 12_000
HTTP_CONCURRENCY = 64
HTTP_SECONDS = 0.05
ENGINE = {"enforce_eager": True, "kv_cache_memory_bytes": 512 * 2**20, "max_num_seqs": 256}
ANSWER = '[{"tag": "information retrieval", "explanation": "the query asks for facts"}]'
WINDOW = (64, 64, 64, 300)
"""Tokens of the prompts on which the model is taught: mostly their ends, to be quick."""

MEMORY_SIZES = (10_000, 100_000, 1_000_000, 4_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["vllm", "http", "memory"], nargs="?")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--ray-data-llm", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, folder = options.child
        print("RESULT " + json.dumps(CHILDREN[name](Path(folder))))
        return
    for what in [options.what] if options.what else ["vllm", "http", "memory"]:
        folder = Path(tempfile.mkdtemp(prefix="tagging-"))
        try:
            figures = BENCHMARKS[what](folder, options)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        common.write(f"tagging_{what}", figures)


def child(name: str, folder: Path) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    result = common.child(__file__, "--child", name, str(folder))
    shown = ", ".join(f"{k} {v}" for k, v in result.items() if not isinstance(v, list | dict))
    print(f"  {name}: {shown}", flush=True)
    return result


def make_lake(folder: Path, queries: list[str]) -> None:
    from query_lakes import add_samples
    from tagsieve.lake import Lake

    for start in range(0, len(queries), 50_000):
        add_samples(Lake(str(folder / "lake")), queries[start : start + 50_000], pool=f"p{start}")


def timed_step(folder: Path, tagger: Any) -> dict[str, Any]:
    """The tag step with Spark and Ray already there; seconds without the engine's start."""
    from tagsieve.console import Console
    from tagsieve.engines.config import RayConfig, SparkConfig
    from tagsieve.engines.context import Context, Engines
    from tagsieve.lake import Lake
    from tagsieve.ledger import StepRun, new_run_id
    from tagsieve.tagging import tag

    lake = Lake(str(folder / "lake"))
    for made in ("raw_tags", "quarantine"):
        shutil.rmtree(f"{lake.root}/{made}", ignore_errors=True)
    engines = Engines(SparkConfig(driver_memory="2g"), RayConfig())
    try:
        engines.spark.range(1).count()
        engines.ray()
        run = StepRun(lake, new_run_id(), "tag")
        started = time.monotonic()
        tag(Context(lake, engines, run, Console(quiet=True)), tagger)
        spent = time.monotonic() - started - run.metrics["engine_start_seconds"]
        run.check()
    finally:
        engines.close()
    return {
        "seconds": round(spent, 2),
        "rows_per_second": round(run.input / spent, 2),
        "kept": run.kept,
        "quarantined": run.quarantined.total(),
        "commits": run.metrics["commits"],
        "model_calls": run.metrics["model_calls"],
        "engine_rows_per_second": run.metrics.get("rows_per_second"),
    }


def in_pairs(kind: str, folder: Path, pairs: int) -> dict[str, Any]:
    """The bare engine and the whole step one after the other, in alternating order; the rows are
    compared after each pair."""
    runs: dict[str, list[dict[str, Any]]] = {"bare": [], "step": []}
    for pair in range(pairs):
        print(f"pair {pair + 1} of {pairs}", flush=True)
        for name in ("bare", "step") if pair % 2 == 0 else ("step", "bare"):
            runs[name].append(child(f"{kind}-{name}", folder))
        compare_rows(folder)
    rates = {name: [run["rows_per_second"] for run in listed] for name, listed in runs.items()}
    shares = [step / bare for step, bare in zip(rates["step"], rates["bare"], strict=True)]
    return {
        **runs,
        "medians": {name: round(statistics.median(listed), 1) for name, listed in rates.items()},
        "shares": [round(share, 4) for share in shares],
        "share_median": round(statistics.median(shares), 4),
    }


def for_readme(what: str, queries: int, figures: dict[str, Any]) -> tuple[str, str]:
    """A row of the README's table: the median rates, and the shares with their spread."""
    shares, medians = figures["shares"], figures["medians"]
    return (
        f"{what}, {len(shares)} pairs of {queries:,} queries",
        f"{medians['step']:,.0f} of {medians['bare']:,.0f} rows/s ({figures['share_median']:.0%}; "
        f"{min(shares):.0%} to {max(shares):.0%})",
    )


# --- vLLM ---------------------------------------------------------------------------------------


def vllm_benchmark(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    queries = common.alpaca_queries(options.queries or VLLM_QUERIES)
    (folder / "queries.json").write_text(json.dumps(queries))
    make_lake(folder, queries)
    print("teaching the model", flush=True)
    child("teach", folder)
    rows = []
    other = {}
    if options.ray_data_llm:
        other = {name: child(f"vllm-{name}", folder) for name in ("ray-data", "bare")}
        theirs, bare = (other[name]["rows_per_second"] for name in ("ray-data", "bare"))
        share = f"{theirs:,.0f} of {bare:,.0f} rows/s ({theirs / bare:.0%})"
        rows = [("ray.data.llm on the same prompts against `LLM.generate`, one pair", share)]
    figures = in_pairs("vllm", folder, options.pairs)
    return {
        "queries": len(queries),
        "engine": ENGINE,
        **figures,
        "ray_data_llm": other,
        "readme": [
            for_readme("tag step with vLLM against `LLM.generate`", len(queries), figures),
            *rows,
        ],
    }


def teach(folder: Path) -> dict[str, Any]:
    """A tiny Llama that answers every prompt with a list of tags."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tagsieve.engines.llm.prompts import load_prompt
    from tiny_llama import make_tiny_llama

    path = make_tiny_llama(folder / "model", hidden=128, layers=2)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    template = load_prompt("instagger_paper", ("query",))
    answer = tokenizer(f" {ANSWER}", add_special_tokens=False)["input_ids"] + [1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    queries = json.loads((folder / "queries.json").read_text())
    started, step, loss = time.monotonic(), 0, torch.tensor(9.0)
    while loss.item() > 0.002:
        losses = []
        for query in queries[step * 4 % len(queries) :][:4]:
            prompt = tokenizer(template.render({"query": query}))["input_ids"][
                -WINDOW[step % len(WINDOW)] :
            ]
            ids = torch.tensor([prompt + answer])
            labels = torch.tensor([[-100] * len(prompt) + answer])
            losses.append(model(input_ids=ids, labels=labels).loss)
        loss = torch.stack(losses).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    model.save_pretrained(path)
    seconds = round(time.monotonic() - started, 1)
    return {"steps": step, "loss": loss.item(), "seconds": seconds, "answer_tokens": len(answer)}


def vllm_config(folder: Path) -> Any:
    from tagsieve.tagging import VllmTaggerConfig

    return VllmTaggerConfig(
        model=str(folder / "model"),
        dtype="float32",
        engine_args=ENGINE,
        decoding={"max_tokens": 64},
    )


def vllm_bare(folder: Path) -> dict[str, Any]:
    """`LLM.generate` over all prompts at once."""
    from vllm import LLM, SamplingParams

    from tagsieve.engines.llm.prompts import load_prompt

    template = load_prompt("instagger_paper", ("query",))
    queries = json.loads((folder / "queries.json").read_text())
    prompts = [template.render({"query": query}) for query in queries]
    llm = LLM(model=str(folder / "model"), dtype="float32", **ENGINE)
    sampling = SamplingParams(temperature=0, max_tokens=64)
    started = time.monotonic()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    spent = time.monotonic() - started
    texts = [output.outputs[0].text for output in outputs]
    (folder / "bare.json").write_text(json.dumps(texts))
    return {"seconds": round(spent, 2), "rows_per_second": round(len(texts) / spent, 2)}


def vllm_step(folder: Path) -> dict[str, Any]:
    return timed_step(folder, vllm_config(folder))


def compare_rows(folder: Path) -> None:
    """What is in the table is what the bare engine wrote, read by the parser."""
    from tagsieve import records
    from tagsieve.lake import Lake
    from tagsieve.tagging.replies import parse_tags

    queries = json.loads((folder / "queries.json").read_text())
    texts = json.loads((folder / "bare.json").read_text())
    lake = Lake(str(folder / "lake"))
    found = {r["query_id"]: r["tags"] for r in lake.arrow("raw_tags").to_pylist()}
    asked = {row["key"].split()[-1] for row in lake.arrow("quarantine").to_pylist()} | set(found)
    assert len(asked) == lake.arrow("raw_tags").num_rows + lake.arrow("quarantine").num_rows
    for query, text in zip(queries, texts, strict=True):
        parsed = parse_tags(text)
        listed = [{"tag": tag, "explanation": why} for tag, why in parsed.tags]
        query_id = records.query_id(query)
        assert query_id in asked
        assert found.get(query_id) == (None if parsed.error else listed), (query, text)


def vllm_ray_data(folder: Path) -> dict[str, Any]:
    """ray.data.llm on the same prompts; seconds from the first batch on, for the start is in it."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    from tagsieve.engines.llm.prompts import load_prompt

    template = load_prompt("instagger_paper", ("query",))
    queries = json.loads((folder / "queries.json").read_text())
    ray.init("local", num_cpus=3, include_dashboard=False)
    config = vLLMEngineProcessorConfig(
        model_source=str(folder / "model"),
        engine_kwargs={"dtype": "float32", **ENGINE},
        concurrency=1,
        batch_size=64,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
        placement_group_config={"bundles": [{"CPU": 1}]},  # it would ask for a GPU
    )
    processor = build_processor(
        config,
        preprocess=lambda row: {
            "prompt": row["prompt"],
            "sampling_params": {"temperature": 0, "max_tokens": 64},
        },
        postprocess=lambda row: {"text": row["generated_text"]},
    )
    rows = [{"prompt": template.render({"query": query})} for query in queries]
    first, done, skipped = 0.0, 0, 0
    for batch in processor(ray.data.from_items(rows)).iter_batches(batch_size=None):
        if not done:
            first, skipped = time.monotonic(), len(batch["text"])
        done += len(batch["text"])
    spent = time.monotonic() - first
    rate = round((done - skipped) / spent, 2)
    return {"seconds": round(spent, 2), "rows_per_second": rate}


# --- HTTP ---------------------------------------------------------------------------------------


def http_benchmark(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    queries = common.alpaca_queries(options.queries or HTTP_QUERIES)
    (folder / "queries.json").write_text(json.dumps(queries))
    make_lake(folder, queries)
    with common.serving(__file__, folder):
        figures = in_pairs("http", folder, options.pairs)
    return {
        "queries": len(queries),
        "concurrency": HTTP_CONCURRENCY,
        "answer_seconds": HTTP_SECONDS,
        **figures,
        "readme": [for_readme("tag step over HTTP against bare `asyncio`", len(queries), figures)],
    }


def endpoint(folder: Path) -> dict[str, Any]:
    """Answers every chat after `HTTP_SECONDS`, until it is ended."""
    from stub_endpoint import completion

    body = json.dumps(completion(ANSWER)).encode()
    common.serve_chats(folder, HTTP_SECONDS, lambda asked: body)  # noqa: ARG005
    return {}


def http_config(folder: Path) -> Any:
    from tagsieve.tagging import HttpTaggerConfig

    return HttpTaggerConfig(
        base_url=(folder / "url").read_text(), model="stub", concurrency=HTTP_CONCURRENCY
    )


def http_bare(folder: Path) -> dict[str, Any]:
    """The same client with the same requests, and nothing around it."""
    import httpx2
    from openai import AsyncOpenAI, DefaultAioHttpClient

    from tagsieve.engines.llm.prompts import load_prompt

    template = load_prompt("open_tags", ("query",))
    queries = json.loads((folder / "queries.json").read_text())

    async def run() -> tuple[float, list[str]]:
        limits = httpx2.Limits(
            max_connections=HTTP_CONCURRENCY, max_keepalive_connections=HTTP_CONCURRENCY
        )
        client = AsyncOpenAI(
            base_url=(folder / "url").read_text(),
            api_key="none",
            http_client=DefaultAioHttpClient(limits=limits),
        )
        gate = asyncio.Semaphore(HTTP_CONCURRENCY)

        async def one(query: str) -> str:
            async with gate:
                done = await client.chat.completions.create(
                    model="stub",
                    messages=template.render({"query": query}),
                    max_tokens=512,
                    temperature=0.0,
                    top_p=1.0,
                )
                return done.choices[0].message.content

        await asyncio.gather(*map(one, queries[:200]))
        started = time.monotonic()
        texts = await asyncio.gather(*map(one, queries))
        seconds = time.monotonic() - started
        await client.close()
        return seconds, texts

    spent, texts = asyncio.run(run())
    (folder / "bare.json").write_text(json.dumps(texts))
    return {"seconds": round(spent, 2), "rows_per_second": round(len(texts) / spent, 2)}


def http_step(folder: Path) -> dict[str, Any]:
    return timed_step(folder, http_config(folder))


# --- memory -------------------------------------------------------------------------------------


def memory_benchmark(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for size in MEMORY_SIZES if options.queries is None else (options.queries,):
        print(f"{size:,} queries", flush=True)
        part = folder / str(size)
        part.mkdir()
        make_lake(part, [f"Question {n}: what is {n} plus {n % 97}?" for n in range(size)])
        found[size] = child("memory", part)
        shutil.rmtree(part)
    peaks = [f"{found[size]['driver_mib']:,.0f}" for size in found]
    sizes = [f"{size:,}" for size in found]
    return {
        "driver": {str(size): result for size, result in found.items()},
        "readme": [
            (
                f"driver's memory at {' / '.join(sizes)} queries, an engine that answers at once",
                f"{' / '.join(peaks)} MiB",
            )
        ],
    }


class InstantTagger:
    """An actor that answers at once."""

    def __init__(self, tagger: str, run_id: str, **_: Any) -> None:
        self._tagger, self._run_id = tagger, run_id

    def start(self, counted: Any) -> None:
        """Nothing to load."""

    def run(self, batch: Any) -> Any:
        """The same tags for every query."""
        from tagsieve.tagging.rows import tagged_rows

        tags = json.loads(ANSWER)
        rows = [{"query_id": q, "tags": tags} for q in batch["query_id"].to_pylist()]
        return tagged_rows(self._tagger, self._run_id, rows), {"model_calls": float(len(rows))}


def memory(folder: Path) -> dict[str, Any]:
    """The most private memory of the driver's Python process while the step ran."""
    import psutil

    import tagsieve.tagging.taggers as taggers
    from tagsieve.tagging import MemoryTaggerConfig

    taggers.MemoryTagger = InstantTagger  # type: ignore[misc,assignment]
    me, peak, stop = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            used = me.memory_info()
            peak[0] = max(peak[0], used.rss - used.shared)

    threading.Thread(target=watch, daemon=True).start()
    result = timed_step(folder, MemoryTaggerConfig())
    stop.set()
    return result | {"driver_mib": round(peak[0] / 2**20, 1)}


BENCHMARKS = {"vllm": vllm_benchmark, "http": http_benchmark, "memory": memory_benchmark}
CHILDREN = {
    "teach": teach,
    "vllm-bare": vllm_bare,
    "vllm-step": vllm_step,
    "vllm-ray-data": vllm_ray_data,
    "endpoint": endpoint,
    "http-bare": http_bare,
    "http-step": http_step,
    "memory": memory,
}


if __name__ == "__main__":
    main()
