"""The score step with real Spark, Ray and Delta: exactly once, incremental, several scorers."""

import pytest

import tagsieve.scoring.step as step
from handmade import put, tagged
from parity.losses import Reference
from scored import PAIRS, add_pairs, conversation, scores_of, value
from tagsieve import records
from tagsieve.errors import RunError
from tagsieve.scoring import ScoreConfig, score, scorer_fingerprints

LENGTHS = [
    {"kind": "length", "name": "characters", "tokenizer": "characters"},
    {"kind": "length", "name": "words", "tokenizer": "words", "of": "instruction"},
    {"kind": "length", "name": "nltk", "tokenizer": "nltk"},
]


@pytest.fixture
def make_config(tiny_llama):
    def make(*scorers, **settings):
        """Of kinds, or of whole scorers; what asks a model gets the tiny one."""
        model = {"model": tiny_llama, "dtype": "float32"}
        whole = [{"name": s, "kind": s} if isinstance(s, str) else s for s in scorers]
        made = [s if s["kind"] in ("length", "turns", "tags") else {**model, **s} for s in whole]
        return ScoreConfig(scorers=made, cpus_per_replica=1, **settings)

    return make


def named(config, version=None):
    return scorer_fingerprints(config, version)


def run(make_context, config, version=None, limit=None):
    context = make_context("score", limit)
    score(context, config, version)
    context.run.check()
    return context.run


def test_score_by_several_scorers_of_one_model_in_one_go(
    lake, make_context, make_config, tiny_llama
):
    add_pairs(lake)
    add_pairs(lake, PAIRS[:2], pool="q")  # the same contents in another pool
    later = [("user", "Hi"), ("assistant", "Hello."), ("user", PAIRS[0][0]), ("tool", "{}"),
             ("assistant", "Well,"), ("assistant", "no.")]  # fmt: skip
    put(lake, "samples", [conversation(later)])
    deita = {"kind": "deita", "name": "q", "what": "quality"}
    config = make_config("ifd", "perplexity", "response_loss", "instruction_loss", deita)
    done = run(make_context, config)
    turns = len(PAIRS) + 2
    assert (done.input, done.kept, done.known) == (5 * turns, 5 * turns, 0)
    # Given, alone and DEITA's template for each turn; six different instructions. One load.
    assert done.metrics["model_calls"] == 3 * turns + 6
    names, reference = named(config), Reference(tiny_llama)
    for turns, number, (instruction, response) in (
        ([("user", PAIRS[3][0]), ("assistant", PAIRS[3][1])], 0, PAIRS[3]),
        (later, 0, ("Hi", "Hello.")),
        (later, 1, (PAIRS[0][0], "Well,\nno.")),
    ):
        before = f"{instruction}\n\n### Response:"
        wanted = {
            "ifd": reference.ifd(response, before),
            "perplexity": reference.perplexity(response, before),
            "response_loss": reference.loss(response, before),
            "instruction_loss": reference.loss(instruction),
            "q": reference.deita("quality", instruction, response),
        }
        found = {name: value(lake, names[name], turns, number) for name in wanted}
        assert found == pytest.approx(wanted, rel=1e-4)
    row = scores_of(lake, names["ifd"])[records.sample_id(later), 1]
    assert row["tokens"] == len(reference.ids("Well,\nno."))


def test_score_twice_calls_the_model_once_and_what_is_new_for_itself(
    lake, make_context, make_config
):
    add_pairs(lake)
    config = make_config("perplexity", "instruction_loss")
    run(make_context, config)
    before, version = scores_of(lake, named(config)["perplexity"]), lake.version("scores")
    again = run(make_context, config)
    assert (again.known, again.kept) == (10, 0)
    assert lake.version("scores") == version
    add_pairs(lake, [("A new one", "Indeed."), PAIRS[0]], pool="new")
    # One scorer more of the same model: of what was there, only its own scores are lacking.
    config = make_config("perplexity", "instruction_loss", "response_loss")
    grown = run(make_context, config)
    assert (grown.known, grown.kept, grown.metrics["model_calls"]) == (10, 2 + 6, 6 + 1)
    after = scores_of(lake, named(config)["perplexity"])
    assert len(after) == 6
    assert before.items() <= after.items()


@pytest.mark.soak
def test_score_killed_between_commits_goes_on_without_loss_or_repeats(
    lake, make_context, make_config, monkeypatch
):
    add_pairs(lake, [(f"Question {n}", f"Answer {n}") for n in range(20)])
    config = make_config("ifd", "response_loss", chunk_turns=3, commit_seconds=0.001)
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
    assert done == 12  # two chunks of three turns, two scorers
    again = run(make_context, config)
    assert (again.known, again.kept) == (done, 40 - done)
    ifd, loss = (scores_of(lake, name) for name in named(config).values())
    assert len(ifd) == len(loss) == 20
    assert lake.arrow("scores").num_rows == 40


def test_score_sets_aside_what_it_cannot_score_once(lake, make_context, make_config):
    no_reply = [("user", "Hi"), ("user", "Are you there?"), ("assistant", "Yes.")]
    too_long = [("user", "Say it"), ("assistant", "word " * 100)]
    put(lake, "samples", [conversation(turns) for turns in (no_reply, too_long)])
    config = make_config({"kind": "ifd", "name": "ifd", "max_tokens": 64}, *LENGTHS)
    first = run(make_context, config)
    # Lengths take any text; the turn without a reply has none by each of three scorers.
    assert first.quarantined == {"no_response": 3, "overlong": 1}
    assert (first.input, first.kept) == (12, 8)
    stored = lake.arrow("quarantine").to_pylist()
    assert {row["step"] for row in stored} == {"score"}
    by_reason = {row["reason"]: row for row in stored if row["key"].startswith("ifd-")}
    assert by_reason["overlong"]["payload"].decode().startswith("Say it\n\nword")
    assert "the model takes 64" in by_reason["overlong"]["error"]
    assert by_reason["no_response"]["key"].split() == [
        named(config)["ifd"], records.sample_id(no_reply), "0"
    ]  # fmt: skip
    add_pairs(lake, PAIRS[:1])
    second = run(make_context, config)
    assert (second.known, second.kept, second.quarantined) == (12, 4, {})


def test_score_counts_lengths_turns_and_tags(lake, make_context, make_config, tiny_llama):
    turns = [("user", "How  are\u2003you?"), ("assistant", "I'm fine, 谢谢."), ("user", "Ok"),
             ("assistant", "Bye")]  # fmt: skip
    put(lake, "samples", [conversation(turns)])
    key = records.sample_id(turns)
    put(lake, "tags", [{**tagged(key, "a", "b"), "turn_tags": [["a", "b"], []]},
                       tagged(key, "a", version="v2")])  # fmt: skip
    add_pairs(lake, PAIRS[:1])  # without tags
    tokens = {"kind": "length", "name": "tokens", "tokenizer": tiny_llama}
    config = make_config(*LENGTHS, tokens, "turns", "tags")
    done = run(make_context, config, "v1")
    names, reference = named(config, "v1"), Reference(tiny_llama)

    def found(name):
        return [value(lake, names[name], turns, turn) for turn in (0, 1)]

    assert found("characters") == [len("I'm fine, 谢谢."), 3]
    assert found("words") == [3, 1]
    assert found("nltk") == [6, 1]  # I 'm fine , 谢谢 .
    assert found("tokens") == [len(reference.ids("I'm fine, 谢谢.")), len(reference.ids("Bye"))]
    assert found("tags") == [2, 0]
    assert value(lake, names["turns"], turns, -1) == 2
    # Five scorers of three turns and one of two conversations; the turn without tags waits.
    assert (done.input, done.kept, done.rejected) == (17, 16, {"untagged": 1})
    put(lake, "tags", [tagged(next(k for k, _ in scores_of(lake, names["nltk"]) if k != key), "x")])
    later = run(make_context, config, "v1")
    assert (later.known, later.kept, later.rejected.total()) == (16, 1, 0)


@pytest.mark.soak
def test_score_with_a_limit_scores_only_that_many_turns(lake, make_context, make_config):
    add_pairs(lake)
    config = make_config("perplexity", "instruction_loss", *LENGTHS)
    done = run(make_context, config, limit=2)
    assert (done.input, done.kept, done.known) == (10, 10, 0)
    assert {len(scores_of(lake, name)) for name in named(config).values()} == {2}


def test_score_of_a_model_is_refused_while_another_run_is_at_it(lake, make_context, make_config):
    add_pairs(lake)
    config = make_config("perplexity")
    (group,) = step.model_groups(config, named(config))
    with step.lease(lake, f"score-{group.name}", "other"):
        with pytest.raises(RunError, match="run other"):
            run(make_context, config)
