"""The step train on two Ray workers, on rows that a tiny model can learn."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from handmade import put, rows_of
from stub_judge import engine, shown
from tagsieve import evaluating, judging
from tagsieve.config import validate
from tagsieve.errors import RunError
from tagsieve.evaluating import evaluate
from tagsieve.evaluating.config import EvaluateAnswersConfig
from tagsieve.judging import judge
from tagsieve.judging.config import JudgeAnswersConfig
from tagsieve.training import sources
from tiny_llama import FAST
from toys import WORDS


def losses(folder, name="loss"):
    history = json.loads((Path(folder) / "history.json").read_text())
    return [row["value"] for row in history if row["name"] == name]


def answer(folder, question):
    """What a model says to a question, through its own chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    with torch.inference_mode():
        found = model.generate(torch.tensor([asked]), max_new_tokens=12, do_sample=False)
    return tokenizer.decode(found[0, len(asked) :])


def grade(text):
    """A judge that knows what the toys are to say."""
    first, *rest = text.split()
    return 10 if first in WORDS and rest == [first] else 1


@pytest.mark.slow
def test_fine_tuning_on_two_workers_and_judged_answers(
    lake, add_selection, make_config, make_context, run, endpoint, tmp_path
):
    long = [("user", "say"), ("assistant", "sea " * 300)]
    add_selection(64, extra=[("f" * 32, long, {}), ("e" * 32, [("user", "say")], {})])
    config = make_config(
        workers=2, epochs=12, eval_share=0.1, overlong="leave_out", neftune=0.1, name="toy"
    )
    source = sources.conversations("toys", mixed=False)
    made = run(config, source)
    assert made.input == 66
    assert dict(made.rejected) == {
        "held_out": 64 - made.kept, "overlong": 1, "no_answer": 1
    }  # fmt: skip
    folder = tmp_path / "models" / "toy"
    first, *_, last = losses(folder)
    assert first > 3.0
    assert last < 0.3
    assert losses(folder, "eval_loss")[-1] < 0.3
    assert answer(folder, "say poem") == "poem poem</s>"
    steps = math.ceil(made.kept / 8) * 12
    assert made.metrics["steps"] == steps
    (row,) = rows_of(lake, "models")
    assert row["steps"] == steps
    assert row["rows"] == made.kept
    assert row["path"] == str(folder)
    card = (folder / "README.md").read_text()
    assert row["model_id"] in card
    assert "| `selections` | 1 |" in card
    assert list((folder / "tensorboard").iterdir())
    assert {(r["sample_id"], r["reason"]) for r in rows_of(lake, "rejects")} == {
        ("f" * 32, "overlong"), ("e" * 32, "no_answer")
    }  # fmt: skip
    assert sorted(row["source_row"] for row in rows_of(lake, "rejects")) == [0, 1]
    # It answers a test set in vLLM, and a judge compares it with another model.
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(json.dumps({"q": f"say {word}"}) for word in WORDS))
    test_sets = [{"name": "toys", "path": str(questions), "field": "q"}]
    served = {"kind": "vllm", "model": str(folder), "dtype": "float32", "engine_args": FAST,
              "decoding": {"max_tokens": 12}}  # fmt: skip
    asked = {"name": "toy", "path": str(tmp_path / "answers"), "test_sets": test_sets}
    task = evaluating.task_of(validate(EvaluateAnswersConfig, asked | {"engine": served}, "e"))
    evaluate(make_context("evaluate"), task)
    nothing = [json.dumps({"output": "nothing"})] * len(WORDS)
    (tmp_path / "none.jsonl").write_text("\n".join(nothing))
    endpoint.reply = lambda prompt: json.dumps(
        {"feedback": "", **dict(zip(("first", "second"), map(grade, shown(prompt)), strict=True))}
    )
    compared = {
        "name": "toy", "path": str(tmp_path / "judged"), "test_sets": test_sets,
        "answers": {"toy": {"path": str(tmp_path / "answers/toy/{test_set}.jsonl")},
                    "base": {"path": str(tmp_path / "none.jsonl")}},
        "judges": {"stub": {"engine": engine(endpoint)}},
    }  # fmt: skip
    judge(make_context("judge"), judging.task_of(validate(JudgeAnswersConfig, compared, "j")))
    (result,) = json.loads((tmp_path / "judged" / "toy.json").read_text())["results"]
    assert result["judged"] == len(WORDS)
    assert result["both_pass"]["score"] == 2.0  # right about every word, in both orders
    # Where it runs is no other training; neither is a selection of another name beside it.
    put(lake, "selections", [{"selection": "other", "pool": "p", "sample_id": "0", "rank": 0,
                              "run_id": "by hand"}])  # fmt: skip
    again = run(config.model_copy(update={"workers": 1, "checkpoint_steps": 7}), source)
    assert again.known == again.input == 66
    assert len(rows_of(lake, "models")) == 1


def test_nothing_to_train_on(lake, add_selection, make_config, run):
    add_selection(3)
    with pytest.raises(RunError, match=r"selection none has no row; run the step select with"):
        run(make_config(), sources.conversations("none", mixed=False))
    toys = sources.conversations("toys", mixed=False)
    small = {"template": "vicuna", "max_tokens": 16}
    with pytest.raises(
        RunError, match=r"max_tokens=16: 3 of 3 rows .* than 16 tokens, the longest"
    ):
        run(make_config(**small, overlong="leave_out"), toys)
    with pytest.raises(RunError, match=r"train\.overlong=refuse: 3 of 3 rows"):
        run(make_config(**small, overlong="refuse"), toys)
    with pytest.raises(RunError, match="no row to train on: 3 held_out"):
        run(make_config(eval_share=0.999999), toys)
    assert rows_of(lake, "models") == []


def test_more_workers_than_there_are_cores(add_selection, make_config, run):
    add_selection(3)
    config = make_config(workers=8)
    with pytest.raises(RunError, match=r"train\.workers=8 with 1 CPU each: the cluster has"):
        run(config, sources.conversations("toys", mixed=False))
