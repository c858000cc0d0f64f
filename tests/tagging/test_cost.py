"""What a dry run says of the tag step: queries, tokens, requests, time."""

from datetime import UTC, datetime

import pytest

from handmade import put, sample
from query_lakes import QUERIES, add_samples
from tagsieve import records
from tagsieve.tagging import (
    CascadeConfig,
    HttpTaggerConfig,
    MemoryTaggerConfig,
    VllmTaggerConfig,
    tagger_fingerprint,
)
from tagsieve.tagging import cost as costs
from tagsieve.tagging.cost import tag_cost
from tagsieve.tagging.llm import prompt_of

HTTP = HttpTaggerConfig(base_url="http://localhost/v1", model="m", decoding={"max_tokens": 100})


def answer(lake, config, *texts, step="tag", **metrics):
    """Rows of a tagger that a run wrote, and that run's line of the ledger."""
    tagger = tagger_fingerprint(config)
    rows = [
        {"query_id": records.query_id(t), "tagger": tagger, "tags": [], "run_id": "r"}
        for t in texts
    ]
    put(lake, "raw_tags", rows)
    now = datetime.now(UTC)
    told = {"run_id": "r", "step": step, "status": "done", "started": now, "kept": len(texts)}
    put(lake, "runs", [told | {"metrics": list(metrics.items())}])


def test_cost_counts_the_queries_without_an_answer_once(lake):
    add_samples(lake, QUERIES)
    add_samples(lake, QUERIES[:2], pool="q")
    assert tag_cost(lake, HTTP, 0).queries == 5
    answer(lake, HTTP, *QUERIES[:2])
    key = f"{tagger_fingerprint(HTTP)} {records.query_id(QUERIES[2])}"
    put(lake, "quarantine", [{"run_id": "r", "step": "tag", "key": key}])
    assert tag_cost(lake, HTTP, 0).queries == 2
    assert tag_cost(lake, HTTP, 7).queries == 9  # rows that are not ingested yet
    other = HTTP.model_copy(update={"model": "another"})
    assert tag_cost(lake, other, 0).queries == 5


def test_cost_of_an_endpoint_is_told_in_requests_and_tokens(lake):
    add_samples(lake, QUERIES)
    cost = tag_cost(lake, HTTP, 0)
    assert (cost.calls, cost.output_tokens, cost.seconds) == (5, 500, None)
    assert cost.told.startswith("5 requests; ")
    assert "at 4 bytes a token, for want of tag.tokenizer" in cost.told
    assert "at most 500 answer tokens (100 each)" in cost.told
    assert "try --limit 200" in cost.told


def test_cost_counts_tokens_with_the_models_tokenizer(lake, tiny_llama):
    from transformers import AutoTokenizer

    add_samples(lake, QUERIES)
    config = VllmTaggerConfig(model=tiny_llama)
    template, tokenizer = prompt_of(config), AutoTokenizer.from_pretrained(tiny_llama)
    prompts = [template.render({"query": query}) for query in QUERIES]
    assert tag_cost(lake, config, 0).prompt_tokens == sum(map(len, tokenizer(prompts)["input_ids"]))
    by_name = HTTP.model_copy(update={"tokenizer": tiny_llama, "prompt": "instagger_paper"})
    assert tag_cost(lake, by_name, 0).prompt_tokens == tag_cost(lake, config, 0).prompt_tokens


def test_cost_takes_time_and_answers_from_the_taggers_own_run(lake):
    add_samples(lake, [f"Question {n}" for n in range(1000)])
    measured = {"rows_per_second": 50.0, "engine_start_seconds": 30.0}
    tokens = {"model_calls": 10.0, "output_tokens": 400.0}
    answer(lake, HTTP, "Question 0", **measured, **tokens)
    cost = tag_cost(lake, HTTP, 0)
    assert cost.seconds == pytest.approx(999 / 50 + 30)
    assert cost.output_tokens == 999 * 40
    assert "39,960 answer tokens (as measured)" in cost.told


def test_cost_takes_no_measures_of_another_step_or_tagger(lake):
    add_samples(lake, [f"Question {n}" for n in range(1000)])
    student = HTTP.model_copy(update={"model": "student"})
    measures = {"model_calls": 10.0, "seconds": 1.0}
    answer(lake, MemoryTaggerConfig(), step="embed", **measures, rows_per_second=900.0)
    answer(lake, HTTP, "Question 0", "Question 1", **measures, rows_per_second=20.0)
    answer(lake, student, "Question 0", step="evaluate", **measures, rows_per_second=5.0)
    answer(lake, MemoryTaggerConfig(), step="judge", **measures, rows_per_second=1.0)
    assert tag_cost(lake, HTTP, 0).seconds == pytest.approx(998 / 20)
    assert tag_cost(lake, student, 0).seconds == pytest.approx(999 / 5)


def test_cost_of_a_cascades_taggers_is_told_by_what_each_measured(lake):
    add_samples(lake, [f"Question {n}" for n in range(1000)])
    put(lake, "raw_tags", [{"query_id": "q", "tagger": tagger_fingerprint(HTTP), "run_id": "r"}])
    metrics = {"memory_model_calls": 99.0, "memory_rows_per_second": 500.0, "seconds": 60.0}
    metrics |= {"http_model_calls": 10.0, "http_rows_per_second": 4.0, "http_output_tokens": 300.0}
    answer(lake, MemoryTaggerConfig(), "Question 0", model_calls=10.0, llm_share=0.1, **metrics)
    cost = tag_cost(lake, CascadeConfig(llm=HTTP, llm_share=0.1), 0)
    assert cost.seconds == pytest.approx(1000 / 500 + 100 / 4)
    assert cost.output_tokens == 100 * 30


def test_cost_is_told_by_queries_of_every_pool_and_turn(lake, monkeypatch):
    """Above so many samples that ids are not held: about, and never samples for queries."""
    long, short = ("code", 3000, 4000), ("alpaca", 1000, 10)
    for pool, count, size in (long, short):
        turns = [("user", "x" * size), ("assistant", "a")] * 3
        rows = [sample(pool, f"{pool}{n}", [f"{pool}{n}-{t}" for t in range(3)], turns)
                for n in range(count)]  # fmt: skip
        for begin in range(0, count, 500):
            put(lake, "samples", rows[begin : begin + 500])
    exact = tag_cost(lake, HTTP, 0)
    assert (exact.queries, exact.told.startswith("12,000 requests")) == (12_000, True)
    mean = len(str(prompt_of(HTTP).render({"query": ""})).encode()) + (3 * 4000 + 10) / 4
    assert exact.prompt_tokens == pytest.approx(12_000 * mean / 4, rel=0.05)
    assert tag_cost(lake, HTTP, 0) == exact
    monkeypatch.setattr(costs, "COUNTED_ROWS", 100)
    answer(lake, HTTP, *(f"Question {n}" for n in range(2000)))
    guessed = tag_cost(lake, HTTP, 0)
    assert (guessed.queries, guessed.calls) == (10_000, 10_000)
    assert guessed.told.startswith("about 10,000 requests")
    cascade = tag_cost(lake, CascadeConfig(llm=HTTP, llm_share=0.3), 0)
    assert "of the model about 3,600 requests" in cascade.told


def test_cost_of_a_short_run_is_told_by_its_whole_time(lake):
    add_samples(lake, QUERIES)
    answer(lake, HTTP, QUERIES[0], model_calls=10.0, seconds=12.0, engine_start_seconds=2.0)
    assert tag_cost(lake, HTTP, 0).seconds == pytest.approx(4 / 1.0 + 2.0)


def test_cost_of_a_cascade_is_its_share_of_the_calls(lake):
    add_samples(lake, [f"Question {n}" for n in range(100)])
    cost = tag_cost(lake, CascadeConfig(llm=HTTP, llm_share=0.3), 0)
    assert (cost.queries, cost.calls) == (100, 30)
    assert "30 requests" in cost.told
    by_quality = tag_cost(lake, CascadeConfig(llm=HTTP, target_f1=0.8), 0)
    assert "at most 100 requests" in by_quality.told


def test_cost_before_the_first_ingest_says_what_it_cannot_know(tmp_path):
    from tagsieve.lake import Lake

    cost = tag_cost(Lake(str(tmp_path / "none")), HTTP, 20)
    assert cost.calls == 20
    assert "prompt tokens not known before the first ingest" in cost.told
    memory = tag_cost(Lake(str(tmp_path / "none")), MemoryTaggerConfig(), 20)
    assert memory.told == "20 calls of the embedded tagger"
