"""Taggers, scorers and preference-trained models: trained on two Ray workers, then used by the
steps that they are for."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoModelForCausalLM

from handmade import put, rows_of
from query_lakes import add_samples
from scored import add_pairs, value
from tagsieve import records
from tagsieve.engines.llm.prompts import load_prompt
from tagsieve.scoring import ScoreConfig, score, scorer_fingerprints
from tagsieve.tagging import VllmTaggerConfig, tag, tagger_fingerprint
from tagsieve.training import sources
from tiny_llama import FAST, make_tiny_llama

THINGS = ("sea", "cats", "rome", "rain", "jazz", "bees", "tea", "maps", "fire", "moon")
WISHES = {"write": "poem", "sort": "ordering", "explain": "teaching", "list": "enumeration",
          "translate": "translation"}  # fmt: skip
QUERIES = {
    f"{wish} {thing}": [{"tag": tag, "explanation": f"wants {tag}"},
                        {"tag": thing, "explanation": f"about {thing}"}]
    for wish, tag in WISHES.items() for thing in THINGS
}  # fmt: skip


def losses(folder, name="loss"):
    history = json.loads((Path(folder) / "history.json").read_text())
    return [row["value"] for row in history if row["name"] == name]


@pytest.fixture(scope="module")
def tagger_base(tmp_path_factory):
    """A tiny model whose tokenizer knows the prompt and the tags."""
    prompt = load_prompt("instagger_paper", ("query",))
    texts = [f"{prompt.render({'query': query})} {json.dumps(tags)}"
             for query, tags in QUERIES.items()]  # fmt: skip
    folder = tmp_path_factory.mktemp("tagger-base")
    return str(make_tiny_llama(folder, context=256, vocabulary=700, texts=texts))


@pytest.mark.slow
def test_a_tagger_learns_50_queries_and_tags_them_in_vllm(
    lake, make_config, make_context, run, tagger_base, tmp_path
):
    assert len(QUERIES) == 50
    add_samples(lake, list(QUERIES))
    teacher = [
        {"query_id": records.query_id(query), "tagger": "teacher", "tags": tags,
         "run_id": "by hand"}
        for query, tags in QUERIES.items()
    ]  # fmt: skip
    put(lake, "raw_tags", teacher)
    config = make_config(
        "instagger", model=tagger_base, workers=2, batch_size=10, micro_batch_size=5, epochs=50,
        eval_share=0.0, learning_rate=2e-3, checkpoint_steps=1000, log_steps=5,
    )  # fmt: skip
    made = run(config, sources.tags_of("teacher", None))
    assert made.kept == 50
    folder = tmp_path / "models" / "mine"
    assert losses(folder)[-1] < 0.02
    tagger = VllmTaggerConfig(
        model=str(folder), dtype="float32", engine_args=FAST, decoding={"max_tokens": 96}
    )
    context = make_context("tag")
    tag(context, tagger)
    assert context.run.kept == 50
    found = {row["query_id"]: row["tags"]
             for row in rows_of(lake, "raw_tags", tagger=tagger_fingerprint(tagger))}  # fmt: skip
    assert found == {row["query_id"]: row["tags"] for row in teacher}


@pytest.mark.slow
def test_a_scorer_learns_scores_that_the_step_score_then_gives(
    lake, make_config, make_context, run, tmp_path
):
    template = load_prompt("deita_complexity", ("instruction",))
    words = ("sea", "list", "sort", "poem", "time", "good")
    known = {f"say {word}": str(n) for n, word in enumerate(words, start=1)}
    rows = [
        {"prompt": template.render({"instruction": text}), "completion": score, "seed_id": text}
        for text, score in known.items()
    ]
    texts = [row["prompt"] + row["completion"] for row in rows] * 3
    base = make_tiny_llama(tmp_path / "base", hidden=64, context=256, texts=texts)
    pq.write_table(pa.Table.from_pylist(rows * 4), tmp_path / "set.parquet")
    config = make_config(
        "scorer",
        parallel="fsdp",
        model=str(base),
        workers=2,
        batch_size=12,
        micro_batch_size=6,
        epochs=80,
        learning_rate=5e-3,
    )
    made = run(config, sources.scorer_examples(str(tmp_path / "set.parquet")))
    assert made.kept == 24
    folder = tmp_path / "models" / "mine"
    assert losses(folder)[-1] < 0.1
    add_pairs(lake, [(text, "yes") for text in known])
    scorers = ScoreConfig(
        scorers=[{"kind": "deita", "name": "c", "what": "complexity", "model": str(folder),
                  "dtype": "float32"}]
    )  # fmt: skip
    score(make_context("score"), scorers)
    fingerprint = scorer_fingerprints(scorers)["c"]
    for text, wanted in known.items():
        found = value(lake, fingerprint, [("user", text), ("assistant", "yes")])
        assert found == pytest.approx(float(wanted), abs=0.3)


@pytest.mark.slow
def test_preferences_are_learned_by_an_adapter(make_config, run, small_llama, tmp_path):
    pairs = [
        {"prompt": f"say {word}", "chosen": f"{word} good", "rejected": f"{word} time"}
        for word in ("sea", "list", "sort", "poem")
    ] * 8
    same = {"prompt": "say user", "chosen": "user", "rejected": "user"}
    lines = "\n".join(json.dumps(row) for row in [*pairs, same])
    (tmp_path / "pairs.jsonl").write_text(lines)
    config = make_config(
        "dpo", workers=2, epochs=10, learning_rate=1e-2, beta=0.5, lora={"rank": 8, "alpha": 32}
    )
    made = run(config, sources.preference_file(str(tmp_path / "pairs.jsonl")))
    assert (made.kept, dict(made.rejected)) == (32, {"no_answer": 1})
    folder = tmp_path / "models" / "mine"
    first, *_, last = losses(folder)
    assert first == pytest.approx(0.693, abs=0.01)  # both are as likely as before
    assert last < 0.2
    assert made.metrics["rewards_accuracies"] == 1.0
    # Merged: a whole model, of which only what the adapter changes differs from the base.
    base, whole = (AutoModelForCausalLM.from_pretrained(at) for at in (small_llama, folder))
    changed = {
        name for name, was in base.state_dict().items()
        if not was.allclose(whole.state_dict()[name])
    }  # fmt: skip
    assert changed
    assert all("_proj" in name for name in changed)
