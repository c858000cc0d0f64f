"""The evolve step with real Spark, Ray and Delta against a scripted endpoint."""

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
from aiohttp import web

from evolved import pair, score_of
from handmade import rows_of
from stub_endpoint import completion
from tagsieve import records
from tagsieve.errors import RunError
from tagsieve.evolving import evolve, replay

QUERIES = [f"Say something about number {n}" for n in range(6)]


def quarantine(lake):
    """Reason -> number, of what is open."""
    rows = lake.arrow("quarantine").to_pylist()
    return Counter(row["reason"] for row in rows if row["resolved_by"] is None)


def test_evolve_makes_each_variant_from_the_one_before_and_scores_them_in_one_prompt(
    lake, make_config, script, run, add_pairs, training_set, tmp_path
):
    add_pairs(*QUERIES[:3])
    add_pairs({**pair(QUERIES[0]), "pool": "q"})  # the same content in another pool
    done = run(make_config(rounds=3))
    assert (done.unit, done.input, done.kept, done.known) == ("seed", 3, 3, 0)
    assert (done.metrics["variants"], done.metrics["model_calls"]) == (9, 12)
    assert sorted(script.evolved) == sorted(
        q + " and more" * times for q in QUERIES[:3] for times in range(3)
    )
    assert [len(texts) for texts in script.ranked] == [4, 4, 4]
    made = {row["generation_id"]: row for row in rows_of(lake, "generations")}
    for row in made.values():
        parent = made.get(row["parent_id"], {"text": None, "round": 0})
        assert row["round"] == parent["round"] + 1
        assert row["text"] == (parent["text"] or QUERIES[ids().index(row["seed_id"])]) + " and more"
        assert row["kind"] == "evol_complexity"
        assert f"evolve_complexity-{row['operator']}-" in row["prompt_id"]
        assert (row["prompt_tokens"], row["output_tokens"]) == (10, 5)
    rows = training_set()
    assert [(row["seed_id"], row["round"]) for row in rows] == [
        (seed, number) for seed in sorted(ids()[:3]) for number in range(4)
    ]
    for row in rows:
        query = QUERIES[ids().index(row["seed_id"])] + " and more" * row["round"]
        assert row["prompt"] == (
            "You are a helpful assistant. Please identify the complexity score of the following "
            f"user query. \n##Query: {query}  \n##Complexity: "
        )
        assert (row["completion"], row["score"]) == (str(row["round"] + 1), row["round"] + 1)
    assert pq.read_table(tmp_path / "out" / "set.parquet").to_pylist() == rows
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert info["set"]["columns"] == {"prompt": "prompt", "response": "completion"}
    assert [p.name for p in (tmp_path / "out").iterdir() if p.name[0] in "._"] == []


def ids():
    return [records.query_id(query) for query in QUERIES]


def test_evolve_quality_asks_about_the_first_pair_only(
    lake, make_config, script, run, add_pairs, training_set
):
    later = [("user", "And then?"), ("assistant", "Nothing.")]
    no_reply = [("user", "Anyone?"), ("user", "No?"), ("assistant", "Yes.")]
    add_pairs(
        pair("Hi {response}", "Hello.", later),
        pair("Hi {response}", "Hello."),  # the same first pair
        {
            **pair("Anyone?"),
            "sample_id": "x",
            "turns": [{"role": t[0], "content": t[1]} for t in no_reply],
        },
    )
    done = run(make_config(what="quality"))
    assert (done.input, done.kept, done.metrics["seeds_short"]) == (1, 1, 1999)
    assert sorted(script.evolved) == ["Hello.", "Hello. and more"]
    prompts = [body["messages"][-1]["content"] for body in script.endpoint.bodies]
    assert all("<request>\nHi {response}\n</request>" in prompt for prompt in prompts)
    assert [row["prompt"] for row in training_set()] == [
        "You are a helpful assistant. Please identify the quality score of the Response "
        "corresponding to the Question. \n #Question#:\nHi {response}\n#Response#:\n"
        f"Hello.{' and more' * number} \n##Quality: "
        for number in range(3)
    ]


def test_evolve_lands_scores_on_their_variants_whatever_order_is_shown(
    lake, make_config, script, run, add_pairs, training_set
):
    add_pairs(*[f"Question {n}" for n in range(12)])
    run(make_config())
    orders = Counter(tuple(map(score_of, texts)) for texts in script.ranked)
    assert len(orders) > 2  # shuffled, and not all alike
    assert all(row["score"] == row["round"] + 1 for row in training_set())
    shown = {texts[0].split(" and")[0]: texts for texts in script.ranked}
    texts = {row["generation_id"]: row["text"] for row in rows_of(lake, "generations")}
    for row in rows_of(lake, "judgements"):
        (*variants,) = (texts.get(item["id"]) for item in row["items"])
        order = shown[variants[1].split(" and")[0]]
        assert [order[item["position"]] for item in row["items"][1:]] == variants[1:]
        assert row["items"][0]["id"] == row["group_id"]
        assert [item["score"] for item in row["items"]] == [1, 2, 3]
        assert (row["kind"], row["criterion"]) == ("rank", "complexity")
        assert "scores" in row["raw"]


def test_evolve_again_asks_nothing_and_a_grown_pool_for_the_new_seeds(
    lake, make_config, script, run, add_pairs, training_set, tmp_path
):
    add_pairs(*QUERIES[:3])
    run(make_config())
    first, versions = training_set(), [lake.version(t) for t in ("generations", "judgements")]
    (tmp_path / "out" / "set.jsonl").unlink()
    calls = script.calls
    again = run(make_config())
    assert (again.known, again.kept, again.metrics["model_calls"]) == (3, 0, 0)
    assert script.calls == calls
    assert [lake.version(t) for t in ("generations", "judgements")] == versions
    assert training_set() == first
    add_pairs(*QUERIES[3:4])
    grown = run(make_config())
    assert (grown.known, grown.kept, script.calls - calls) == (3, 1, 3)
    assert len(training_set()) == 12


def test_evolve_by_more_rounds_asks_only_for_the_new_ones(
    make_config, script, run, add_pairs, training_set
):
    add_pairs(*QUERIES[:4])
    run(make_config(rounds=3))
    del script.evolved[:], script.ranked[:]
    more = run(make_config(rounds=5))
    assert (more.kept, more.metrics["variants"]) == (4, 8)
    assert Counter(p.count(" and more") for p in script.evolved) == {3: 4, 4: 4}
    assert [len(texts) for texts in script.ranked] == [6] * 4
    assert len(training_set()) == 24


def test_evolve_sets_aside_what_is_no_variant_and_replay_goes_on(
    lake, make_config, script, run, add_pairs, training_set
):
    answers = {
        QUERIES[0]: "<evolved> \n</evolved>",
        QUERIES[1] + " and more": f"<evolved>{QUERIES[1].upper()}  and more</evolved>",
        QUERIES[2]: "I'm sorry, but I can't help with that.",
        QUERIES[3]: completion("<evolved>A lot of", finish="length"),
        QUERIES[4]: web.Response(status=500),
    }
    script.evolve = answers.get
    add_pairs(*QUERIES)
    first = run(make_config())
    assert (first.input, first.kept) == (6, 1)
    assert (
        first.quarantined
        == quarantine(lake)
        == dict.fromkeys(("empty", "unchanged", "refused", "cut", "endpoint"), 1)
    )
    assert {row["seed_id"] for row in training_set()} == {ids()[5]}
    assert len(script.ranked) == 1  # a seed that failed goes no further
    payloads = {row["payload"].decode() for row in lake.arrow("quarantine").to_pylist()}
    assert "I'm sorry, but I can't help with that." in payloads
    calls = script.calls
    second = run(make_config())
    assert (second.known, second.kept, script.calls) == (6, 0, calls)
    assert second.metrics["training_seeds"] == 1

    del answers[QUERIES[0]], answers[QUERIES[4]]
    replayed = run(make_config(), replay, "replay", None, ["endpoint"])
    assert (replayed.input, replayed.kept) == (1, 1)
    replayed = run(make_config(), replay, "replay")
    assert (replayed.input, replayed.kept) == (4, 1)
    assert replayed.quarantined == quarantine(lake) == {"unchanged": 1, "refused": 1, "cut": 1}
    assert {row["seed_id"] for row in training_set()} == {ids()[n] for n in (0, 4, 5)}
    with pytest.raises(RunError, match="for endpoint; 3 do for other reasons"):
        run(make_config(), replay, "replay", None, ["endpoint"])


def test_evolve_sets_aside_judgements_that_are_not_whole(
    lake, make_config, script, run, add_pairs, training_set
):
    def scores(*pairs):
        return json.dumps({"scores": [{"variant": v, "score": s} for v, s in pairs]})

    answers = {
        QUERIES[0]: scores((1, 2), (2, 3)),
        QUERIES[1]: scores((1, 2), (2, 3), (3, 4), (1, 2)),
        QUERIES[2]: scores((1, 2), (2, 3), (3, 7)),
        QUERIES[3]: "All of them are splendid.",
        QUERIES[
            4
        ]: f"<think>{scores((1, 1))}</think>Sure!\n```json\n{scores((3, 1), (1, 1), (2, 1))}",
    }
    script.rank = lambda texts: answers.get(min(texts, key=len))
    add_pairs(*QUERIES)
    first = run(make_config())
    assert (first.kept, first.quarantined) == (2, {"incomplete": 4})
    assert quarantine(lake) == {"incomplete": 4}
    assert {row["seed_id"] for row in training_set()} == {ids()[4], ids()[5]}
    script.rank = lambda texts: None
    evolved = len(script.evolved)
    replayed = run(make_config(), replay, "replay")
    assert (replayed.input, replayed.kept, len(script.evolved)) == (4, 4, evolved)
    assert quarantine(lake) == {}
    assert len(training_set()) == 18


@pytest.mark.soak
def test_evolve_killed_between_commits_goes_on_without_loss_or_repeats(
    lake, make_config, script, run, add_pairs, training_set, monkeypatch
):
    queries = [f"Question {n}" for n in range(16)]
    add_pairs(*queries)
    config = make_config(generator={"commit_rows": 4}, rounds=2)
    commit = lake.append_next

    def die_at_third_of(table):
        commits = 0

        def append(name, *arguments):
            nonlocal commits
            commits += name == table
            if commits == 3:
                raise RunError("the machine died")
            return commit(name, *arguments)

        monkeypatch.setattr(lake, "append_next", append)
        with pytest.raises(RunError, match="died"):
            run(config)
        monkeypatch.undo()
        return lake.arrow(table).num_rows

    assert 0 < die_at_third_of("generations") < 16
    scored = die_at_third_of("judgements")
    assert 0 < scored < 16
    again = run(config)
    assert (again.known, again.kept) == (scored, 16 - scored)
    texts = [row["text"] for row in rows_of(lake, "generations")]
    assert sorted(texts) == sorted(q + " and more" * n for q in queries for n in (1, 2))
    groups = [row["group_id"] for row in rows_of(lake, "judgements")]
    assert len(groups) == len(set(groups)) == 16
    assert len(training_set()) == 48
    # Each kill repeats at most what was under way.
    assert script.calls - 48 <= 2 * config.generator.commit_rows


def test_evolve_keeps_to_the_budget_and_goes_on_in_the_next_run(
    lake, make_config, script, run, add_pairs, training_set
):
    add_pairs(*QUERIES[:4])
    config = make_config(generator={"budget": {"requests": 9}, "concurrency": 1})
    first = run(config)  # 8 variants, and one of 4 scores
    assert (first.kept, first.rejected) == (1, {"over_budget": 3})
    assert script.calls == first.metrics["requests"] == 9
    second = run(config)
    assert (second.known, second.kept, second.metrics["model_calls"]) == (1, 3, 3)
    assert script.calls == 12
    assert len(training_set()) == 12


def test_evolve_budget_of_the_generator_is_not_that_of_another_judge(
    make_config, script, run, add_pairs, endpoint
):
    add_pairs(*QUERIES[:3])
    judge = {"kind": "http", "base_url": endpoint.url, "model": "other"}
    generator = {"budget": {"requests": 2}, "concurrency": 1}
    done = run(make_config(generator=generator, judge=judge, rounds=1))
    assert (done.kept, done.rejected) == (2, {"over_budget": 1})
    assert (len(script.evolved), len(script.ranked)) == (2, 2)
    assert done.metrics["requests"] == 4


@pytest.mark.soak
def test_evolve_with_a_limit_takes_only_that_many_seeds(
    make_config, script, run, add_pairs, training_set
):
    add_pairs(*QUERIES)
    config = make_config(seeds=4, rounds=1)
    first = run(config, limit=2)
    assert (first.input, first.kept, first.known) == (2, 2, 0)
    whole = run(config)
    assert (whole.input, whole.kept, whole.known) == (4, 2, 2)
    assert script.calls == len(training_set()) == 8


@pytest.mark.soak
def test_evolve_by_another_judge_keeps_the_variants(
    lake, make_config, script, run, add_pairs, endpoint
):
    add_pairs(*QUERIES[:2])
    run(make_config())
    evolved = len(script.evolved)
    judge = {"kind": "http", "base_url": endpoint.url, "model": "other", "guided_json": True}
    done = run(make_config(judge=judge))
    assert (done.kept, len(script.evolved)) == (2, evolved)
    assert endpoint.bodies[-1]["model"] == "other"
    schema = endpoint.bodies[-1]["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["scores"]
    assert len({row["judge"] for row in rows_of(lake, "judgements")}) == 2


def test_evolve_of_a_generator_is_refused_while_another_run_is_at_it(
    lake, make_config, run, add_pairs
):
    from tagsieve.evolving.prompts import generator_fingerprint
    from tagsieve.lease import lease

    add_pairs(*QUERIES[:1])
    config = make_config()
    with lease(lake, f"evolve-{generator_fingerprint(config)}", "other"):
        with pytest.raises(RunError, match="run other"):
            run(config, evolve)
