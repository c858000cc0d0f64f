"""The real vLLM on a CPU with a tiny random Llama: whole tag steps, one engine start each."""

import shutil

import pytest

from query_lakes import QUERIES, add_samples, tagged
from tagsieve import records
from tagsieve.errors import RunError, UsageError
from tagsieve.tagging import VllmTaggerConfig, check_tagger, tag, tagger_fingerprint
from tiny_llama import FAST


@pytest.fixture(scope="session")
def make_config(tiny_llama):
    def make(**settings):
        defaults = {
            "model": tiny_llama,
            "dtype": "float32",
            "engine_args": FAST,
            "decoding": {"max_tokens": 48},
        }
        return VllmTaggerConfig(**(defaults | settings))

    return make


@pytest.mark.slow
def test_vllm_tags_by_guided_json_and_calls_the_engine_for_new_queries_only(
    lake, make_context, make_config
):
    long = "start " + "word " * 3000 + "finish"
    texts = [*QUERIES, long, *(f"{query} ({n})" for n in range(20) for query in QUERIES)]
    add_samples(lake, texts)
    config = make_config(
        guided_json=True, prompt="open_tags", max_tags=1, decoding={"max_tokens": 600}
    )
    first = make_context("tag")
    tag(first, config)
    first.run.check()
    assert first.run.metrics["model_calls"] == len(texts) == 106
    rows = {row["query_id"]: row for row in lake.arrow("raw_tags").to_pylist()}
    assert rows[records.query_id(long)]["flags"] == ["query_truncated"]
    assert {len(tags) for tags in tagged(lake).values()} == {1}  # what the grammar allows
    assert all(row["prompt_tokens"] and row["output_tokens"] for row in rows.values())
    # One row more: one call more, by the engine's own count.
    add_samples(lake, ["One more"], pool="new")
    second = make_context("tag")
    tag(second, config)
    second.run.check()
    assert (second.run.kept, second.run.known) == (1, 106)
    assert second.run.metrics["model_calls"] == 1


@pytest.mark.soak
def test_vllm_sets_aside_what_is_no_list_of_tags_with_the_raw_text(lake, make_context, make_config):
    add_samples(lake, QUERIES)
    context = make_context("tag")
    tag(context, make_config())
    context.run.check()
    assert context.run.quarantined == {"unparseable": 5}
    payloads = [row["payload"].decode() for row in lake.arrow("quarantine").to_pylist()]
    assert all(len(payload) > 20 for payload in payloads)


@pytest.mark.slow
def test_vllm_that_cannot_start_says_why(lake, make_context, make_config):
    add_samples(lake, QUERIES)
    config = make_config(engine_args=FAST | {"no_such_argument": 1})
    with pytest.raises(RunError, match=r"did not start.*no_such_argument"):
        tag(make_context("tag"), config)


def test_vllm_needs_as_many_gpus_as_it_is_told(make_context, make_config, monkeypatch):
    ray_config = make_context("tag").engines.ray_config
    check_tagger(make_config(), ray_config)  # the one for CPUs
    monkeypatch.setattr("tagsieve.engines.llm.asking.gpus_of", lambda c: c.tensor_parallel_size)
    monkeypatch.setattr("tagsieve.engines.llm.asking.count_gpus", lambda: 3)
    config = make_config(replicas=2, tensor_parallel_size=2)
    with pytest.raises(UsageError, match=r"replicas=2 .*tensor_parallel_size=2 need 4 GPUs, .* 3;"):
        check_tagger(config, ray_config)


def test_vllm_fingerprint_has_the_weights_and_not_the_place(make_config, tiny_llama, tmp_path):
    one = tagger_fingerprint(make_config())
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny_llama, moved)
    assert tagger_fingerprint(make_config(model=str(moved))) == one
    assert tagger_fingerprint(make_config(replicas=2, in_flight=8, engine_args={})) == one
    changed = [
        {"engine_args": FAST | {"quantization": "fp8"}},
        {"dtype": "bfloat16"},
        {"decoding": {"max_tokens": 49}},
        {"prompt": "instagger_chat"},
        {"max_model_len": 512},
        {"lora": str(moved)},
    ]
    assert len({tagger_fingerprint(make_config(**c)) for c in changed} | {one}) == 7


def test_vllm_fingerprint_of_a_model_that_is_not_there_is_refused(make_config):
    with pytest.raises(UsageError, match="'/no/such/model': no such folder"):
        tagger_fingerprint(make_config(model="/no/such/model"))
