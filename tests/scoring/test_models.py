"""The actor that scores turns by a model: the same bits in any chunks, bad turns set aside."""

import asyncio

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scored import PAIRS
from tagsieve.engines.logprobs import TransformersLogprobs
from tagsieve.engines.vectors import device
from tagsieve.scoring.config import DeitaConfig, IfdConfig, PerplexityConfig
from tagsieve.scoring.models import ModelScorer, killed_by

SCORERS = {
    "ifd-1": IfdConfig(name="i", model="m"),
    "deita-1": DeitaConfig(name="q", model="m", what="complexity"),
}


def turns(pairs, scorers=tuple(SCORERS)):
    rows = [
        {"sample_id": f"s{n}", "turn": 0, "instruction": a, "response": b, "earlier": None,
         "scorers": list(scorers)}
        for n, (a, b) in enumerate(pairs)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def actor(folder, scorers=SCORERS):
    engine = TransformersLogprobs(folder, None, "float32", 1, None, device())
    made = ModelScorer(engine, scorers, "run1")
    asyncio.run(made.start({}))
    return made


def values(tables):
    rows = pa.concat_tables(tables).to_pylist()
    return {(row["sample_id"], row["scorer"]): row["value"] for row in rows}


def test_scores_in_any_chunks_and_order_are_the_same_bits(tiny_llama):
    made = actor(tiny_llama)
    batch = turns([(f"{a} ({n})", b * (1 + n % 3)) for n in range(6) for a, b in PAIRS])
    whole, _ = asyncio.run(made.run(batch))
    backwards, _ = asyncio.run(made.run(batch.take(list(range(len(batch)))[::-1])))
    pieces = [asyncio.run(made.run(batch.slice(n, 7)))[0] for n in range(0, len(batch), 7)]
    assert values([whole]) == values([backwards]) == values(pieces)
    assert len(values([whole])) == 2 * len(batch)


def test_turns_are_scored_by_the_scorers_that_lack_them_and_equal_texts_once(tiny_llama):
    made = actor(tiny_llama)
    mixed = pa.concat_tables([turns(PAIRS[:2], ["ifd-1"]), turns([PAIRS[0]] * 3, ["deita-1"])])
    rows, counts = asyncio.run(made.run(mixed))
    assert rows["scorer"].to_pylist() == ["ifd-1"] * 2 + ["deita-1"] * 3
    assert counts["model_calls"] == 2 * 2 + 1


def test_what_is_no_finite_number_is_set_aside(tiny_llama, tmp_path):
    broken = AutoModelForCausalLM.from_pretrained(tiny_llama)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    with torch.no_grad():
        broken.get_input_embeddings().weight[tokenizer("z")["input_ids"][-1]] = float("nan")
    broken.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    made = actor(str(tmp_path), {"p": PerplexityConfig(name="p", model="m")})
    rows, _ = asyncio.run(made.run(turns([("Hi", "fine"), ("Hi", "z z")], ["p"])))
    good, bad = rows.to_pylist()
    assert good["value"] > 1
    assert good["failure"] is bad["value"] is None
    assert (bad["failure"]["reason"], bad["failure"]["key"]) == ("nan_score", "p s1 0")
    assert bad["failure"]["payload"] == b"Hi\n\nz z"


def test_a_turn_of_which_the_engine_dies_fails_for_each_of_its_scorers():
    rows = killed_by("run1", turns(PAIRS[:1]), "out of memory").to_pylist()
    assert [row["failure"]["key"] for row in rows] == ["deita-1 s0 0", "ifd-1 s0 0"]
    assert {row["failure"]["reason"] for row in rows} == {"engine_died"}
    assert {row["failure"]["error"] for row in rows} == {"out of memory"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_scores_on_a_gpu_are_the_same_bits_in_any_chunks(tiny_llama):
    test_scores_in_any_chunks_and_order_are_the_same_bits(tiny_llama)
