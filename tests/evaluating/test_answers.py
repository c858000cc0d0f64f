"""A model answers test sets: each distinct question once, files line for line, judged after."""

import json
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from handmade import recorded, rows_of
from stub_endpoint import completion
from stub_judge import MARKS, engine, judge_of
from tagsieve.config import validate
from tagsieve.console import Console
from tagsieve.engines.config import RayConfig
from tagsieve.errors import RunError, UsageError
from tagsieve.evaluating import evaluate, replay, task_of
from tagsieve.evaluating.config import EvaluateAnswersConfig
from tagsieve.plan import plan
from tagsieve.recipe import load_recipe
from tagsieve.runner import run_replay, run_steps
from tagsieve.test_sets.config import Answers
from tagsieve.test_sets.reading import read_answers

ODD = 'Say "no"\u2028twice: \U0001f600 \\ {instruction}\n\nplease'
FIRST = ["What is A?", None, ODD, "What is B?", None, "What is A?"]
SECOND = [("What is B?", ""), ("Sum up:", "some text")]


@pytest.fixture
def config_of(tmp_path, endpoint):
    """A config over two test sets, of which `first` has the given lines (None: a blank one)."""

    def make(first=FIRST, **settings):
        lines = ["" if text is None else json.dumps({"ask": text}) for text in first]
        (tmp_path / "first.jsonl").write_text("\n".join([*lines, "", ""]))
        pairs = [json.dumps({"do": {"what": what}, "with": text}) for what, text in SECOND]
        (tmp_path / "second.jsonl").write_text("\n".join(pairs))
        values = {
            "name": "mine",
            "path": str(tmp_path / "out"),
            "test_sets": [
                {"name": "first", "path": str(tmp_path / "first.jsonl"), "field": "ask"},
                {
                    "name": "second",
                    "path": str(tmp_path / "second.jsonl"),
                    "field": ["do.what", "with"],
                },
            ],
            "engine": engine(endpoint),
        }
        return validate(EvaluateAnswersConfig, values | settings, "t")

    return make


@pytest.fixture
def run(lake, engines):
    def make(config, run_id, function=evaluate, *reasons):
        return recorded(lake, engines, "evaluate", run_id, function, task_of(config), *reasons)

    return make


def lines_of(config, test_set):
    text = Path(config.path, config.name, f"{test_set}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) if line else None for line in text.split("\n")]


def told(question):
    return {"question": question, "output": f"Answer to {question}"}


def test_each_question_is_asked_once_and_files_are_those_of_the_test_sets(
    lake, endpoint, config_of, run
):
    endpoint.reply = lambda prompt: f"Answer to {prompt}"
    config = config_of()
    line = run(config, "r1")
    assert (line.unit, line.input, line.kept, line.metrics["cut"]) == ("question", 4, 4, 0)
    assert endpoint.calls == dict.fromkeys(
        ["What is A?", ODD, "What is B?", "Sum up:\nsome text"], 1
    )
    expected = [None if text is None else told(text) for text in FIRST]
    assert lines_of(config, "first") == [*expected, None]
    assert lines_of(config, "second") == [*map(told, ["What is B?", "Sum up:\nsome text"]), None]
    # As the step judge reads them.
    answers = {"mine": Answers(path=f"{config.path}/mine/{{test_set}}.jsonl")}
    read = read_answers(config.test_sets, answers).to_pylist()
    assert [row["answers"] for row in read] == [[f"Answer to {row['text']}"] for row in read]
    rows = rows_of(lake, "generations")
    assert len({row["generation_id"] for row in rows}) == 4
    (model,) = {row["model"] for row in rows}
    assert model.startswith("http-stub-chat-")
    assert {(row["kind"], row["parent_id"], row["prompt_tokens"]) for row in rows} == {
        ("answer", None, 10)
    }
    assert all(len(row["generation_id"]) == 32 for row in rows)
    assert all(row["prompt_id"].startswith("chat-") for row in rows)

    Path(config.path, "mine", "first.jsonl").unlink()
    again = run(config, "r2")
    assert (again.known, again.kept) == (4, 0)
    assert lines_of(config, "first") == [*expected, None]
    assert sum(endpoint.calls.values()) == 4

    more = run(config_of([*FIRST, "What is C?"]), "r3")
    assert (more.known, more.kept) == (4, 1)
    assert sum(endpoint.calls.values()) == 5
    assert lines_of(config, "first")[-2] == told("What is C?")


def test_what_has_no_answer_lies_in_quarantine_and_is_asked_again_by_its_reason(
    lake, endpoint, config_of, run
):
    endpoint.reply = lambda prompt: f"<think>hm</think>Answer to {prompt}"
    config = config_of()
    old = Path(config.path, "mine", "first.jsonl")
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier run")

    def odd(query, n):
        if query == "What is A?":
            return web.json_response({"error": {"message": "not that"}}, status=400)
        if query == ODD:
            return web.json_response(completion("<think>and so on", finish="length"))
        if query.startswith("Sum up"):
            return web.json_response(completion("It ends in", finish="length"))
        return None

    endpoint.misbehave = odd
    line = run(config, "r1")
    assert (line.input, line.kept) == (4, 2)
    assert line.quarantined == {"refused": 1, "unparseable": 1}
    assert line.metrics["cut"] == 2
    assert not old.exists()
    assert lines_of(config, "second") == [
        told("What is B?"), {"question": "Sum up:\nsome text", "output": "It ends in"}, None
    ]  # fmt: skip
    errors = {row["reason"]: row["error"] for row in rows_of(lake, "quarantine")}
    assert errors["unparseable"].endswith("raise engine.decoding.max_tokens")

    endpoint.misbehave = lambda query, n: None
    some = run(config, "r2", replay, ["unparseable"])
    assert (some.input, some.kept) == (1, 1)
    assert not old.exists()
    resolved = {row["reason"]: row["resolved_by"] for row in rows_of(lake, "quarantine")}
    assert resolved == {"unparseable": "r2", "refused": None}
    told_so = r"nothing of http-stub-chat-\w+ lies in quarantine for unparseable; 1 do for other"
    with pytest.raises(RunError, match=told_so):
        run(config, "r3", replay, ["unparseable"])


def test_a_recipe_answers_replays_and_has_its_answers_judged(
    engines, endpoint, config_of, tmp_path, capsys
):
    config = config_of()
    good = judge_of(0, 10, "line")
    endpoint.reply = lambda prompt: good(prompt) if MARKS.search(prompt) else prompt.upper()
    endpoint.misbehave = lambda query, n: (
        web.json_response(completion("  ")) if query == "What is B?" and n == 1 else None
    )
    for name in ("first", "second"):
        lines = Path(tmp_path / f"{name}.jsonl").read_text().split("\n")
        theirs = ["" if not line else json.dumps({"output": "theirs"}) for line in lines]
        (tmp_path / f"theirs-{name}.jsonl").write_text("\n".join(theirs))
    section = config.model_dump(mode="json", exclude_unset=True)
    answers = {"mine": f"{config.path}/mine", "theirs": f"{tmp_path}/theirs"}
    values = {
        "lake": str(tmp_path / "lake"),
        "steps": ["evaluate"],
        "evaluate": {"task": "answers", **section},
        "judge": {
            "task": "answers",
            "path": str(tmp_path / "out"),
            "test_sets": section["test_sets"],
            "answers": {
                "mine": {"path": f"{answers['mine']}/{{test_set}}.jsonl"},
                "theirs": {"path": f"{answers['theirs']}-{{test_set}}.jsonl"},
            },
            "judges": {"stub": {"engine": engine(endpoint)}},
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    recipe = load_recipe(str(path))
    (step,) = plan(recipe, recipe.steps)
    assert (step.rows, step.unit, step.what) == (4, "questions", "mine answers first, second")
    run_steps(recipe, ["evaluate"], Console(), engines)
    shown = capsys.readouterr().out
    assert "first: 1 of 4 questions lack an answer, so it has no file" in shown
    assert "tagsieve replay RECIPE --step evaluate" in shown
    assert not Path(config.path, "mine").exists()
    run_replay(recipe, "evaluate", [], Console(), engines)
    shown = capsys.readouterr().out
    assert f"answers  {config.path}/mine/{{test_set}}.jsonl: first, second" in shown
    run_steps(recipe, ["judge"], Console(quiet=True), engines)
    figures = json.loads((tmp_path / "out" / "judge.json").read_text())
    assert figures["model"] == "mine"
    assert [(r["test_set"], r["questions"], r["judged"]) for r in figures["results"]] == [
        ("first", 4, 4), ("second", 2, 2), ("all", 6, 6)
    ]  # fmt: skip


def test_another_decoding_or_prompt_is_another_model(config_of, endpoint, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text('text: "{instruction}"')
    warm = engine(endpoint, decoding={"temperature": 0.5})
    configs = [config_of(), config_of(engine=warm), config_of(prompt=str(own))]
    assert len({task_of(config).model.generation_id("q") for config in configs}) == 3


def test_settings_that_cannot_work_are_refused(config_of, endpoint, tmp_path):
    with pytest.raises(UsageError, match=r"engine.guided_json: an answer is plain text"):
        config_of(engine=engine(endpoint, guided_json=True))
    with pytest.raises(UsageError, match=r"prompt 'open_tags': lacks \{instruction\}"):
        task_of(config_of(prompt="open_tags"))
    gone = {"kind": "recorded", "model": "m", "path": "gone.jsonl"}
    with pytest.raises(UsageError, match=r"evaluate.engine.path=gone.jsonl: no such file"):
        task_of(config_of(engine=gone)).check(RayConfig())
    twice = {"name": "a", "path": str(tmp_path / "first.jsonl"), "field": "ask"}
    with pytest.raises(UsageError, match=r"test_sets names a twice"):
        config_of(test_sets=[twice, twice])
    with pytest.raises(UsageError, match=r"evaluate.test_sets.0.path=gone: no such file"):
        task_of(config_of(test_sets=[twice | {"path": "gone"}]))
    with pytest.raises(UsageError, match=r"evaluate: missing.*conf/recipes/answers.yaml"):
        task_of(None)
