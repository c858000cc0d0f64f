"""Scores by a judge at a local endpoint: exactly once, within a budget, hostile answers aside."""

import json

import pytest
from aiohttp import web

from handmade import put, rows_of
from scored import PAIRS, add_pairs, conversation, scores_of, value
from stub_endpoint import completion
from tagsieve import records
from tagsieve.engines.config import RayConfig
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import Lake
from tagsieve.plan import plan
from tagsieve.recipe import Recipe
from tagsieve.scoring import ScoreConfig, check_scorers, replay, score, scorer_fingerprints

QUESTIONS = [(f"Question {n} of many", f"Answer {n}") for n in range(40)]


def grade(query):
    """The stub's grade of an instruction, 1 to 10."""
    return 1 + len(query) % 10


def answered(text, **more):
    return web.json_response(completion(text, **more))


@pytest.fixture
def judge(endpoint):
    """A config of judges at the stub, which grades as `grade` says where it is not told else."""
    endpoint.answers = {}

    def answer(query, n):
        action = endpoint.answers.get(query)
        if action is None:
            return answered(json.dumps({"score": grade(query)}))
        return answered(action) if isinstance(action, str) and action != "drop" else action

    endpoint.misbehave = answer

    def make(*scorers, **engine):
        http = {"kind": "http", "base_url": endpoint.url, "model": "stub", "retries": 0}
        told = [{"name": scorer.get("what", scorer["kind"]), **scorer} for scorer in scorers]
        return ScoreConfig(scorers=[{"engine": http | engine, **scorer} for scorer in told])

    return make


COMPLEXITY = {"kind": "direct", "what": "complexity"}
QUALITY = {"kind": "direct", "what": "quality"}
NODES = {"kind": "nodes"}


def run(make_context, config, limit=None):
    context = make_context("score", limit)
    score(context, config)
    context.run.check()
    return context.run


def open_rows(lake):
    return [row for row in rows_of(lake, "quarantine") if row["resolved_by"] is None]


def test_judge_scores_each_turn_once_and_equal_texts_of_a_chunk_once(
    lake, make_context, judge, endpoint
):
    add_pairs(lake)
    add_pairs(lake, PAIRS[:2], pool="q")
    again = [("user", PAIRS[0][0]), ("assistant", "No."), ("user", "Why?")]
    put(lake, "samples", [conversation(again)])
    config = judge(COMPLEXITY, QUALITY, NODES)
    graded = {query: '{"score": 4.5}' for query, _ in PAIRS[:1]}

    def answer(query, n):
        asked = endpoint.bodies[-1]["messages"][-1]["content"]
        if "semantic" in endpoint.bodies[-1]["messages"][0]["content"]:
            words = [{"id": 1, "parent": 0, "node": "do"}]
            words += [{"id": n, "parent": 1, "node": w} for n, w in enumerate(query.split(), 2)]
            return answered(json.dumps({"nodes": words}))
        if "<response>" in asked:
            return answered(graded.get(query, '{"score": 0}'))
        return answered(json.dumps({"score": grade(query)}))

    endpoint.misbehave = answer
    done = run(make_context, config)
    turns = len(PAIRS) + 2
    assert (done.input, done.kept) == (3 * turns, 3 * turns - 1)
    assert done.quarantined == {"no_response": 1}
    # The repeated instruction is asked once, its two responses are two questions.
    assert done.metrics["model_calls"] == done.metrics["requests"] == 2 * 6 + 6
    names = scorer_fingerprints(config)
    assert value(lake, names["complexity"], again, 1) == grade("Why?")
    assert value(lake, names["quality"], again, 0) == 4.5
    pair = [("user", PAIRS[1][0]), ("assistant", PAIRS[1][1])]
    assert value(lake, names["quality"], pair) == 0
    assert value(lake, names["nodes"], pair) == 1 + len(PAIRS[1][0].split())
    row = scores_of(lake, names["nodes"])[records.sample_id(pair), 0]
    assert (row["tokens"], row["flags"]) == (10, [])
    calls = sum(endpoint.calls.values())
    add_pairs(lake, [("A new one", "Indeed.")])
    grown = run(make_context, config)
    assert (grown.known, grown.kept, grown.metrics["model_calls"]) == (21, 3, 3)
    assert sum(endpoint.calls.values()) == calls + 3


def test_judge_answers_that_are_no_score_are_set_aside_with_what_was_said_and_replayed(
    lake, make_context, judge, endpoint
):
    hostile = {
        "q0": "Ignore that: the score is 10 of 10!",
        "q1": '{"score": 11}',
        "q2": '{"score": 7.3}',
        "q3": '{"score": 3, "score": 9}',
        "q4": answered('{"score": 1', finish="length"),
        "q5": "drop",
        "q6": web.json_response({"error": {"message": "too long"}}, status=400),
        "q7": answered(None, finish="content_filter"),
    }
    endpoint.answers = dict(hostile)
    add_pairs(lake, [(query, "x") for query in [*hostile, "good"]])
    config = judge(COMPLEXITY)
    name = scorer_fingerprints(config)["complexity"]
    done = run(make_context, config)
    assert (done.kept, done.quarantined) == (
        1,
        {"unparseable": 3, "out_of_range": 1, "off_scale": 1, "refused": 2, "endpoint": 1},
    )
    rows = {row["payload"].decode(): row for row in open_rows(lake)}
    assert {"Ignore that: the score is 10 of 10!", '{"score": 11}', "q5\n\nx"} <= rows.keys()
    assert "the answer was cut: raise engine.decoding.max_tokens" in rows['{"score": 1']["error"]
    assert {row["key"].split()[0] for row in rows.values()} == {name}
    assert {row["value"] for row in scores_of(lake, name).values()} == {grade("good")}

    endpoint.answers = {"q1": '{"score": 12}'}
    context = make_context("replay", 2)
    replay(context, config, ["unparseable"])
    context.run.check()
    assert (context.run.input, context.run.kept, context.run.step) == (2, 2, "replay")
    context = make_context("replay")
    replay(context, config)
    context.run.check()
    assert (context.run.input, context.run.kept) == (6, 5)
    assert context.run.quarantined == {"out_of_range": 1}
    (left,) = open_rows(lake)
    assert (left["payload"], left["step"]) == (b'{"score": 12}', "replay")
    assert len(scores_of(lake, name)) == 8
    # What failed in a replay is not asked again by the next run, either.
    add_pairs(lake, [("new", "x")], pool="new")
    assert run(make_context, config).kept == 1
    with pytest.raises(RunError, match="lies in quarantine for endpoint"):
        replay(make_context("replay"), config, ["endpoint"])


def test_judge_within_a_budget_leaves_the_rest_to_the_next_run(lake, make_context, judge, endpoint):
    add_pairs(lake, QUESTIONS)
    config = judge(COMPLEXITY, budget={"requests": 15}, concurrency=4, commit_rows=8)
    first = run(make_context, config)
    assert (first.kept, first.rejected) == (15, {"over_budget": 25})
    second = run(make_context, config)
    assert (second.known, second.kept, second.rejected) == (15, 15, {"over_budget": 10})
    last = run(make_context, config)
    assert (last.known, last.kept, last.rejected.total()) == (30, 10, 0)
    assert set(endpoint.calls.values()) == {1}
    assert len(scores_of(lake, scorer_fingerprints(config)["complexity"])) == 40


def test_judge_killed_between_commits_asks_again_at_most_what_was_under_way(
    lake, make_context, judge, endpoint, monkeypatch
):
    add_pairs(lake, QUESTIONS)
    config = judge(COMPLEXITY, commit_rows=8, concurrency=2)
    commit, commits = lake.append_next, 0

    def die_after_two(name, *arguments):
        nonlocal commits
        commits += name == "scores"
        if commits == 3:
            raise RunError("the machine died")
        return commit(name, *arguments)

    monkeypatch.setattr(lake, "append_next", die_after_two)
    with pytest.raises(RunError, match="died"):
        run(make_context, config)
    monkeypatch.undo()
    done = lake.arrow("scores").num_rows
    assert 0 < done < 40
    again = run(make_context, config)
    assert (again.known, again.kept) == (done, 40 - done)
    assert lake.arrow("scores").num_rows == 40
    assert len(scores_of(lake, scorer_fingerprints(config)["complexity"])) == 40
    assert sum(endpoint.calls.values()) <= 40 + 8


def test_judge_that_fails_for_good_ends_the_run_and_names_its_settings(
    lake, make_context, judge, endpoint
):
    add_pairs(lake)
    endpoint.misbehave = lambda query, n: web.json_response({}, status=401)
    with pytest.raises(RunError, match=r"score\.scorers complexity: engine: base_url, model"):
        run(make_context, judge(COMPLEXITY))
    assert Lake(lake.root).version("scores") is None


def test_judge_with_a_tokenizer_sets_long_prompts_aside_or_cuts_the_read_text(
    lake, make_context, judge, endpoint, tiny_llama
):
    add_pairs(lake, [("short", "start " + "word " * 3000 + "finish")])
    engine = {"tokenizer": tiny_llama, "max_prompt_tokens": 2000}
    endpoint.misbehave = lambda query, n: answered('{"score": 5}')
    done = run(make_context, judge(QUALITY, **engine))
    assert done.quarantined == {"overlong": 1}
    assert not endpoint.calls
    config = judge({**QUALITY, "overlong": "truncate"}, **engine)
    assert run(make_context, config).kept == 1
    (row,) = scores_of(lake, scorer_fingerprints(config)["quality"]).values()
    assert row["flags"] == ["truncated"]
    sent = endpoint.bodies[0]["messages"][-1]["content"]
    assert "<query>\nshort\n</query>" in sent
    assert "start word" in sent
    assert "finish\n</response>" in sent


def test_judge_asks_for_its_scale_under_guided_json(lake, make_context, judge, endpoint):
    add_pairs(lake, PAIRS[:1])
    run(make_context, judge(COMPLEXITY, guided_json=True))
    form = endpoint.bodies[0]["response_format"]["json_schema"]
    assert form["schema"]["properties"]["score"]["enum"] == [n / 2 for n in range(2, 21)]
    assert form["strict"]


def test_judge_fingerprint_has_what_decides_and_not_where_or_how_fast(judge, tmp_path):
    def name(scorer, **engine):
        (found,) = scorer_fingerprints(judge({"name": "s", **scorer}, **engine)).values()
        return found

    one = name(COMPLEXITY)
    assert one.startswith("direct-complexity-")
    assert name(NODES).startswith("nodes-")
    assert name(COMPLEXITY, base_url="http://elsewhere/v1", concurrency=2, commit_rows=9,
                budget={"requests": 1}) == one  # fmt: skip
    prompt = tmp_path / "prompt.yaml"
    prompt.write_text("text: 'Grade {instruction}'")
    found = [
        name(COMPLEXITY),
        name(QUALITY),
        name(NODES),
        name({**NODES, "max_nodes": 9}),
        name({**COMPLEXITY, "overlong": "truncate"}),
        name({**COMPLEXITY, "prompt": str(prompt)}),
        name(COMPLEXITY, model="other"),
        name(COMPLEXITY, decoding={"temperature": 1}),
        name(COMPLEXITY, guided_json=True),
    ]
    assert len(set(found)) == len(found)


def test_judge_lacking_its_key_model_or_prompt_is_refused_before_an_engine_starts(judge, tmp_path):
    for scorer, engine, message in [
        (COMPLEXITY, {"api_key_env": "NO_SUCH_KEY"}, "complexity: engine.api_key_env=NO_SUCH_KEY"),
        ({**QUALITY, "prompt": "judge_complexity"}, {}, r"lacks \{response\}"),
        ({**NODES, "engine": {"kind": "vllm", "model": "/no/such"}}, {}, "no such folder"),
    ]:
        with pytest.raises(UsageError, match=message):
            check_scorers(judge(scorer, **engine), RayConfig())


def test_plan_of_judges_says_how_many_answers_they_give(lake, judge):
    add_pairs(lake)
    config = judge(COMPLEXITY, NODES).model_dump()
    (planned,) = plan(Recipe(lake=lake.root, steps=["score"], score=config), ["score"])
    assert "at most 10 answers of judges" in planned.what
    assert planned.seconds is None
