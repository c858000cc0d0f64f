"""What tagging would cost, before anything runs: queries, tokens, time. Starts no engine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder

from tagsieve.engines.llm.fitting import Fitter, load_tokenizer
from tagsieve.engines.microbatch import quarantine_key
from tagsieve.lake import TABLES, Lake
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

PLACES = 50
"""Places of the table, evenly spaced over its rows, at which they are read."""

BYTES_PER_TOKEN = 4.0
"""Where no tokenizer is known; text in other scripts has fewer."""

COUNTED_ROWS = 5_000_000
"""Up to so many samples, pending queries are counted exactly: their ids are held in memory."""

STEPS = ("tag", "replay", "evaluate")
"""The steps that write to `raw_tags`."""


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
    pending, about = _pending(lake, tagger_fingerprint(config))
    pending += new_rows
    if isinstance(config, CascadeConfig):
        memory = _single(lake, config.memory, pending, about)
        share = config.llm_share if config.llm_share is not None else 1.0
        llm = _single(lake, config.llm, round(pending * share), about)
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
    return _single(lake, config, pending, about)


def _single(lake: Lake, config: SingleTaggerConfig, pending: int, about: str) -> TagCost:
    run = _earlier_run(lake, config)
    started = run.get("engine_start_seconds", 0.0)
    rate = run.get("rows_per_second")
    if run and not rate:  # so short that it came in one piece
        rate = run["model_calls"] / max(run["seconds"] - started, 0.1)
    seconds = pending / rate + started if rate else None
    if isinstance(config, MemoryTaggerConfig):
        told = f"{about}{pending:,} calls of the embedded tagger"
        return TagCost(pending, pending, None, None, seconds, told)
    if isinstance(config, RecordedTaggerConfig):
        told = f"{about}{pending:,} answers of {config.model} from {config.path}"
        return TagCost(pending, 0, None, None, seconds, told)
    mean, how = _mean_prompt_tokens(lake, config)
    most = config.decoding.max_tokens
    answer = run["output_tokens"] / run["model_calls"] if run.get("output_tokens") else None
    prompt_tokens = round(pending * mean) if mean is not None else None
    output_tokens = round(pending * (answer or most))
    calls = f"{about}{pending:,} {'requests' if isinstance(config, HttpTaggerConfig) else 'calls'}"
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


def _pending(lake: Lake, tagger: str) -> tuple[int, str]:
    """Distinct queries of the lake that the tagger has not answered, exactly up to `COUNTED_ROWS`
    samples; "about " where that is only likely: all queries as a part of the samples has them."""
    samples, raw_tags = lake.delta("samples"), lake.delta("raw_tags")
    if samples is None:
        return 0, ""
    rows = int(samples.count())
    if rows > COUNTED_ROWS:
        done = 0
        if raw_tags is not None:
            mine = raw_tags.to_pyarrow_dataset(partitions=[("tagger", "=", tagger)])
            done = mine.count_rows()
        queries = pc.mean(pc.list_value_length(_sample(samples)["query_ids"])).as_py()
        return max(round(rows * queries) - done, 0), "about "
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
    return int(pa.table(builder.execute(sql).read_all())["pending"][0].as_py()), ""


def _earlier_run(lake: Lake, config: SingleTaggerConfig) -> dict[str, Any]:
    """What a step that wrote rows of this tagger measured of it; empty where there is none."""
    tagger = tagger_fingerprint(config)
    run_id = lake.run_of("raw_tags", "tagger", tagger)
    if run_id is None:
        return {}
    rows = lake.arrow("runs", filters=[("run_id", "=", run_id)]).to_pylist()
    steps = [row for row in rows if row["step"] in STEPS]
    if len(steps) > 1:  # it tagged with one tagger and evaluated another: the counts tell which
        mine = pa.dataset.field("run_id") == run_id
        raw_tags = lake.delta("raw_tags")
        assert raw_tags is not None
        dataset = raw_tags.to_pyarrow_dataset(partitions=[("tagger", "=", tagger)])
        kept = dataset.count_rows(filter=mine)
        steps = [row for row in steps if row["kept"] == kept]
    for row in steps:
        measured = _of_tagger(dict(row["metrics"] or []), config.kind)
        if measured.get("model_calls"):
            return measured
    return {}


def _of_tagger(metrics: dict[str, float], kind: str) -> dict[str, float]:
    """Those of one of a cascade's two taggers; all, where there is one."""
    own = {
        name.removeprefix(f"{kind}_"): value
        for name, value in metrics.items()
        if name.startswith(f"{kind}_")
    }
    return {"seconds": metrics.get("seconds", 0.0), **own} if own else metrics


def _mean_prompt_tokens(
    lake: Lake, config: VllmTaggerConfig | HttpTaggerConfig
) -> tuple[float | None, str]:
    samples = lake.delta("samples")
    texts = [] if samples is None else _asked(_sample(samples))
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


def _asked(rows: pa.Table) -> list[str]:
    """Up to `SAMPLED` human turns of samples, evenly spaced."""
    turns = [turn for listed in rows["turns"].to_pylist() for turn in listed]
    asked = [turn["content"] for turn in turns if turn["role"] == "user"]
    return asked[:: max(1, math.ceil(len(asked) / SAMPLED))]


def _sample(samples: DeltaTable) -> pa.Table:
    """`turns` and `query_ids` of up to `SAMPLED` samples: the first ones of the files at `PLACES`,
    so that each pool, whose files are its own, has about its share."""
    adds = pa.table(samples.get_add_actions(flatten=True)).to_pylist()
    files = sorted((row["path"], row["num_records"]) for row in adds if row["num_records"])
    total = sum(rows for _, rows in files)
    wanted: dict[str, int] = {}
    end = before = 0
    for path, rows in files:
        end += rows
        places = round(PLACES * end / total)
        # The name alone is written alike in the log and in a dataset.
        wanted[path.rsplit("/", 1)[-1]] = (places - before) * (SAMPLED // PLACES)
        before = places
    schema = pa.schema([TABLES["samples"].schema.field(name) for name in ("turns", "query_ids")])
    found = [schema.empty_table()]
    for fragment in samples.to_pyarrow_dataset().get_fragments():
        rows = wanted.get(fragment.path.rsplit("/", 1)[-1], 0)
        if rows:
            with pq.ParquetFile(fragment.path, filesystem=fragment.filesystem) as file:
                batch = next(file.iter_batches(rows, columns=schema.names))
            found.append(pa.Table.from_batches([batch]).cast(schema))
    return pa.concat_tables(found)
