"""What tagging would cost, before anything runs: queries, tokens, time. Starts no engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import QueryBuilder

from tagsieve.engines.llm.fitting import Fitter, load_tokenizer
from tagsieve.engines.microbatch import quarantine_key
from tagsieve.lake import Lake
from tagsieve.tagging.config import (
    CascadeConfig,
    HttpTaggerConfig,
    MemoryTaggerConfig,
    RecordedTaggerConfig,
    SingleTaggerConfig,
    TagConfig,
    VllmTaggerConfig,
)
from tagsieve.tagging.llm import prompt_of
from tagsieve.tagging.taggers import tagger_fingerprint

SAMPLED = 2_000
"""Queries whose tokens are counted; their mean stands for all."""

BYTES_PER_TOKEN = 4.0
"""Where no tokenizer is known; text in other scripts has fewer."""

COUNTED_ROWS = 5_000_000
"""Up to so many samples, pending queries are counted exactly: their ids are held in memory."""


@dataclass(frozen=True)
class TagCost:
    """`queries`: to be tagged; `calls`: of the model; `seconds`: None where nothing was measured;
    `told`: all of it for a person."""

    queries: int
    calls: int
    prompt_tokens: int | None
    output_tokens: int | None
    seconds: float | None
    told: str


def tag_cost(lake: Lake, config: TagConfig, new_rows: int) -> TagCost:
    """The cost of tagging what lies in the lake and `new_rows` rows that are not ingested yet.

    Tokens are those of a sample of the lake's queries by the model's tokenizer. Time is that of
    this tagger's own runs in the lake. Raises UsageError when a bank, a model or a prompt is
    not there.
    """
    pending = _pending(lake, tagger_fingerprint(config)) + new_rows
    if isinstance(config, CascadeConfig):
        memory = _single(lake, config.memory, pending)
        share = config.llm_share if config.llm_share is not None else 1.0
        llm = _single(lake, config.llm, round(pending * share))
        whole = memory.seconds is not None and llm.seconds is not None
        at_most = "at most " if config.llm_share is None else ""
        return TagCost(
            pending,
            llm.calls,
            llm.prompt_tokens,
            llm.output_tokens,
            (memory.seconds or 0.0) + (llm.seconds or 0.0) if whole else None,
            f"memory tagger first; of the model {at_most}{llm.told}",
        )
    return _single(lake, config, pending)


def _single(lake: Lake, config: SingleTaggerConfig, pending: int) -> TagCost:
    run = _earlier_run(lake, tagger_fingerprint(config))
    started = run.get("engine_start_seconds", 0.0)
    rate = run.get("rows_per_second")
    if run and not rate:  # so short that it came in one piece
        rate = run["model_calls"] / max(run["seconds"] - started, 0.1)
    seconds = pending / rate + started if rate else None
    if isinstance(config, MemoryTaggerConfig):
        told = f"{pending:,} calls of the embedded tagger"
        return TagCost(pending, pending, None, None, seconds, told)
    if isinstance(config, RecordedTaggerConfig):
        told = f"{pending:,} answers of {config.model} from {config.path}"
        return TagCost(pending, 0, None, None, seconds, told)
    mean, how = _mean_prompt_tokens(lake, config)
    most = config.decoding.max_tokens
    answer = run["output_tokens"] / run["model_calls"] if run.get("output_tokens") else None
    prompt_tokens = round(pending * mean) if mean is not None else None
    output_tokens = round(pending * (answer or most))
    calls = f"{pending:,} {'requests' if isinstance(config, HttpTaggerConfig) else 'calls'}"
    parts = [
        calls,
        f"{prompt_tokens:,} prompt tokens ({how})"
        if prompt_tokens is not None
        else "prompt tokens not known before the first ingest",
        f"{output_tokens:,} answer tokens (as measured)"
        if answer
        else f"at most {output_tokens:,} answer tokens ({most} each)",
    ]
    if seconds is None:
        parts.append("no run of this tagger yet to tell the time from: try --limit 200")
    return TagCost(pending, pending, prompt_tokens, output_tokens, seconds, "; ".join(parts))


def _pending(lake: Lake, tagger: str) -> int:
    """Distinct queries of the lake that the tagger has not answered, exactly up to
    `COUNTED_ROWS` samples."""
    samples, raw_tags = lake.delta("samples"), lake.delta("raw_tags")
    if samples is None:
        return 0
    rows = int(samples.count())
    if rows > COUNTED_ROWS:
        done = 0
        if raw_tags is not None:
            mine = raw_tags.to_pyarrow_dataset(partitions=[("tagger", "=", tagger)])
            done = mine.count_rows()
        return max(rows - done, 0)
    builder = QueryBuilder().register("samples", samples)
    seen = []
    quoted = tagger.replace("'", "''")
    if raw_tags is not None:
        builder.register("raw_tags", raw_tags)
        seen.append(f"SELECT query_id FROM raw_tags WHERE tagger = '{quoted}'")
    quarantine = lake.delta("quarantine")
    if quarantine is not None:
        builder.register("quarantine", quarantine)
        prefix = quarantine_key(tagger, "").replace("'", "''")
        seen.append(
            f"SELECT substr(key, {len(prefix) + 1}) AS query_id FROM quarantine "
            f"WHERE resolved_by IS NULL AND starts_with(key, '{prefix}')"
        )
    queries = "SELECT DISTINCT unnest(query_ids) AS query_id FROM samples"
    sql = f"SELECT count(*) AS pending FROM ({queries}) AS queries"
    if seen:
        known = " UNION ALL ".join(seen)
        sql += f" LEFT ANTI JOIN ({known}) AS seen ON queries.query_id = seen.query_id"
    return int(pa.table(builder.execute(sql).read_all())["pending"][0].as_py())


def _earlier_run(lake: Lake, tagger: str) -> dict[str, Any]:
    """The metrics of a step that wrote rows of this tagger; empty where there is none."""
    run_id = lake.run_of("raw_tags", "tagger", tagger)
    rows = lake.arrow("runs", filters=[("run_id", "=", run_id)]).to_pylist() if run_id else []
    for row in rows:
        metrics = dict(row["metrics"] or [])
        if metrics.get("model_calls"):
            return metrics
    return {}


def _mean_prompt_tokens(
    lake: Lake, config: VllmTaggerConfig | HttpTaggerConfig
) -> tuple[float | None, str]:
    texts = _sample(lake)
    if not texts:
        return None, ""
    template = prompt_of(config)
    prompts = [{"query": text} for text in texts]
    name = config.model if isinstance(config, VllmTaggerConfig) else config.tokenizer
    if name is None:
        size = sum(len(str(template.render(prompt)).encode()) for prompt in prompts)
        how = f"at {BYTES_PER_TOKEN:g} bytes a token, for want of tag.tokenizer"
        return size / BYTES_PER_TOKEN / len(prompts), how
    fitter = Fitter(load_tokenizer(name), template, None, None)
    counted = sum(len(ids) for ids in fitter.tokens(prompts))
    return counted / len(prompts), f"by the model's tokenizer, on {len(prompts):,} queries"


def _sample(lake: Lake) -> list[str]:
    samples = lake.delta("samples")
    if samples is None:
        return []
    rows = samples.to_pyarrow_dataset().head(SAMPLED, columns=["turns"])["turns"].to_pylist()
    asked = [t["content"] for turns in rows for t in turns if t["role"] == "user"]
    return asked[:SAMPLED]
