"""Two models' answers to the five test sets: figures equal to those of a judge whose preferences
and bias are known."""

import gzip
import json
from pathlib import Path

import pytest

from handmade import recorded, rows_of
from pages import check_alone
from stub_judge import engine, judge_of, worth
from tagsieve.config import validate
from tagsieve.errors import UsageError
from tagsieve.judging import judge, task_of
from tagsieve.judging.config import JudgeAnswersConfig

FIELDS = {
    "vicuna": "text",
    "koala": "prompt",
    "wizardlm": "Instruction",
    "sinstruct": ["instruction", "instances.0.input"],
    "lima": "conversations.0",
}
COUNTS = {"vicuna": 80, "koala": 180, "wizardlm": 218, "sinstruct": 252, "lima": 300}
BIAS = 2


def answer(model, test_set, number):
    """Every twentieth answer of the second model is the first one's."""
    of = "ours" if number % 20 == 7 else model
    return " ".join([f"{of} says {number} of {test_set}"] * (number % 3 + 1 + (of == "ours")))


@pytest.fixture
def config_of(tmp_path, shared_data, endpoint):
    """A config over the test sets (their first `most` questions each)."""

    def make(most=None, judges=None, models=("ours", "theirs")):
        sets = []
        for name, field in FIELDS.items():
            with gzip.open(shared_data / "eval" / f"{name}.jsonl.gz", "rt") as file:
                lines = file.read().splitlines()[:most]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
            sets.append({"name": name, "path": str(tmp_path / f"{name}.jsonl"), "field": field})
            for model in models:
                told = [json.dumps({"output": answer(model, name, n)}) for n in range(len(lines))]
                (tmp_path / f"{model}-{name}.jsonl").write_text("\n".join(told))
        answers = {m: {"path": str(tmp_path / f"{m}-{{test_set}}.jsonl")} for m in models}
        values = {
            "name": "t",
            "path": str(tmp_path / "out"),
            "test_sets": sets,
            "answers": answers,
            "judges": judges or {"stub": {"engine": engine(endpoint, concurrency=64)}},
        }
        return validate(JudgeAnswersConfig, values, "t")

    return make


def run(lake, engines, config, run_id="r1"):
    line = recorded(lake, engines, "judge", run_id, judge, task_of(config))
    return line, json.loads(Path(config.path, "t.json").read_text())


def truth(test_sets, counts, bias, high=10):
    """Wins, ties, losses of both orders; of each order; changed outcomes; turned ones; wins of the
    first place: from what the judge finds each answer worth."""
    passed, each, changed, turned, first_wins = [0, 0, 0], [0, 0, 0], 0, 0, 0
    for name in test_sets:
        for n in range(counts[name]):
            a, b = (worth(answer(m, name, n), high) for m in ("ours", "theirs"))
            one = (a + bias > b) - (a + bias < b)
            other = (a > b + bias) - (a < b + bias)
            passed[1 - one if one == other else 1] += 1
            each[1 - one] += 1
            each[1 - other] += 1
            changed += one != other
            turned += one * other == -1
            first_wins += (one == 1) + (other == -1)
    return passed, each, changed, turned, first_wins


@pytest.mark.slow
def test_scores_flips_and_bias_over_the_five_test_sets_are_the_judges(
    lake, engines, endpoint, config_of
):
    endpoint.reply = judge_of(BIAS, 10, "line")
    line, figures = run(lake, engines, config_of())
    # An answer that both models gave is shown in one order.
    same = sum(1 for name in COUNTS for n in range(COUNTS[name]) if n % 20 == 7)
    assert line.kept == line.input == 2 * 1030 - same == sum(endpoint.calls.values())
    assert [r["test_set"] for r in figures["results"]] == [*COUNTS, "all"]
    for result in figures["results"]:
        sets = list(COUNTS) if result["test_set"] == "all" else [result["test_set"]]
        total = sum(COUNTS[name] for name in sets)
        passed, each, changed, turned, first = truth(sets, COUNTS, BIAS)
        told = result["both_pass"]
        assert [told["wins"], told["ties"], told["losses"]] == passed
        assert told["score"] == pytest.approx((passed[0] - passed[2]) / total + 1)
        assert told["low"] < told["score"] < told["high"]
        rate = result["each_order"]
        assert [rate["wins"], rate["ties"], rate["losses"]] == each
        assert rate["score"] == pytest.approx((each[0] - each[2]) / (2 * total) + 1)
        position = result["position"]
        assert position["changed"] == pytest.approx(changed / total)
        assert position["flipped"] == pytest.approx(turned / total)
        assert position["first_wins"] == pytest.approx(first / (2 * total))
    assert figures["results"][-1]["position"]["advantage"] > 0.2


def test_an_unbiased_judge_changes_nothing_and_agrees_with_itself(
    lake, engines, endpoint, config_of
):
    endpoint.reply = judge_of(0, 10)
    judges = {
        name: {"engine": engine(endpoint, concurrency=64), "prompt": prompt}
        for name, prompt in (("a", "judge_answers"), ("b", "judge_answers_no_length"))
    }
    config = config_of(5, judges, ("ours", "theirs", "others"))
    line, figures = run(lake, engines, config)
    assert [(r["judge"], r["against"], r["test_set"]) for r in figures["results"]][:6] == [
        ("a", "theirs", name) for name in [*COUNTS, "all"]
    ]
    assert {r["position"]["changed"] for r in figures["results"]} == {0.0}
    assert [(a["raw"], a["kappa"]) for a in figures["agreement"]] == [(1.0, 1.0)] * 2
    page = Path(config.path, "t.html").read_text()
    check_alone(page)
    assert "ours against others" in page
    assert "<svg" in page
    calls = sum(endpoint.calls.values())
    again, same = run(lake, engines, config, "r2")
    assert (again.known, again.kept) == (line.kept, 0)
    assert same == figures
    assert sum(endpoint.calls.values()) == calls
    criteria = {row["criterion"] for row in rows_of(lake, "judgements")}
    assert criteria == {"answers"}


def test_what_was_not_judged_is_told(lake, engines, endpoint, config_of):
    good = judge_of(BIAS, 10)
    refused = answer("theirs", "koala", 3)

    def reply(prompt):
        return "no scores here" if refused in prompt else good(prompt)

    endpoint.reply = reply
    line, figures = run(lake, engines, config_of(5))
    assert line.quarantined == {"unparseable": 2}
    of_set = {r["test_set"]: (r["questions"], r["judged"]) for r in figures["results"]}
    assert of_set == {name: (5, 5 - (name == "koala")) for name in COUNTS} | {"all": (25, 24)}


def test_winners_and_recorded_judgements(lake, engines, config_of, tmp_path):
    texts = []
    config = config_of(3, {"log": {"engine": {"kind": "recorded", "model": "gpt", "path": "x"}}})
    for row in task_of(config)._asked:
        ours, theirs = (each.text for each in row["answers"])
        for first, second in ((ours, theirs), (theirs, ours)):
            mark = "A" if len(first) > len(second) else "B" if len(first) < len(second) else "C"
            fields = {"question": row["text"], "first": first, "second": second}
            texts.append(json.dumps(fields | {"answer": f"Thinking of it, [[{mark}]]"}))
    log = tmp_path / "log.jsonl.gz"
    log.write_bytes(gzip.compress("\n".join(texts[2:]).encode()))
    told = {"kind": "recorded", "model": "gpt", "path": str(log)}
    config = config_of(3, {"log": {"engine": told, "scale": "winner"}})
    line, figures = run(lake, engines, config)
    assert line.quarantined == {"not_recorded": 2}
    assert line.metrics["model_calls"] == 0
    whole = figures["results"][-1]
    assert whole["judged"] == 14
    assert whole["length"]["longer_wins"] == 1.0
    assert whole["both_pass"]["wins"] == 14
    assert figures["judges"]["log"].startswith("recorded-gpt-judge_answers-")
    gone = config_of(3, {"log": {"engine": told | {"path": "gone"}}})
    with pytest.raises(UsageError, match=r"judges.log.engine.path=gone: no such file"):
        task_of(gone).askers[0].check(engines.ray_config)
