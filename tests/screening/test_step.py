"""The screen step: the ledger, what a second run does, and what selections leave out."""

import json

import pytest

from handmade import put, recorded, rows_of, sample, tagged
from selected import chosen, select_config
from tagsieve.config import validate
from tagsieve.embedding import SentenceEmbedConfig, embed, encode_texts, encoder_fingerprint
from tagsieve.errors import RunError, UsageError
from tagsieve.recipe import Recipe
from tagsieve.runner import check_before
from tagsieve.screening import (
    QuestionEncoder,
    ScreenConfig,
    check_screen,
    find_screening,
    screen,
)
from tagsieve.selection import Sources, select

STORY = "Once upon a time a quick brown fox jumped over seven lazy dogs near the old mill"
QUESTION = "Which of the seven dogs near the old mill did the fox like most of all?"
POOLS = ["b", "a"]


def talk(pool, key, question, reply=STORY, row=0):
    return sample(pool, key, turns=[("user", question), ("assistant", reply)], row=row)


@pytest.fixture
def test_set(tmp_path):
    path = tmp_path / "eval.jsonl"
    path.write_text(json.dumps({"q": "Hello there"}) + "\n" + json.dumps({"q": QUESTION}))
    return {"name": "dogs", "path": str(path), "field": "q"}


@pytest.fixture
def small_lake(lake):
    rows = [
        talk("a", "s1", "Tell me a story about a fox and some dogs"),
        talk("b", "s2", "Tell me a story, about a fox and some dogs!"),
        talk("a", "s3", QUESTION.lower(), "The last one."),
        talk("b", "s3", QUESTION.lower(), "The last one."),
        talk("a", "s4", "Why is the sky blue in summer?", "It scatters light."),
    ]
    put(lake, "samples", [row | {"source_row": number} for number, row in enumerate(rows)])
    put(lake, "tags", [tagged(f"s{number}", "x", f"y{number}") for number in range(1, 6)])
    return lake


@pytest.fixture
def run_screen(small_lake, engines, test_set):
    count = iter(range(100))

    def run(encoder=None, **config):
        values = ScreenConfig(**({"test_sets": [test_set]} | config))
        step = (values, POOLS, encoder)
        return recorded(small_lake, engines, "screen", f"r{next(count)}", screen, *step), values

    return run


def test_screen_counts_every_sample_and_does_nothing_twice(run_screen, small_lake):
    run, config = run_screen()
    assert (run.unit, run.input, run.kept) == ("sample", 5, 2)
    assert run.rejected == {"contaminated": 2, "near_duplicate_text": 1}
    name = find_screening(small_lake, config, POOLS)
    (twin,) = rows_of(small_lake, "near_duplicates")
    assert twin == {
        "screening": name, "sample_id": "s1", "kept": "s2", "similarity": 1.0, "run_id": "r0",
    }  # fmt: skip
    (found,) = rows_of(small_lake, "contaminations")
    assert found == {
        "screening": name, "sample_id": "s3", "test_set": "dogs", "question": 1, "how": "ngram",
        "overlap": pytest.approx(1.0), "similarity": None, "turn": 0, "text": QUESTION,
        "run_id": "r0",
    }  # fmt: skip
    (row,) = rows_of(small_lake, "screenings")
    counts = ("samples", "questions", "near_duplicates", "contaminated")
    assert [row[column] for column in counts] == [5, 2, 1, 2]

    versions = {table: small_lake.version(table) for table in run.written}
    again, _ = run_screen()
    assert (again.input, again.known, again.kept) == (5, 5, 0)
    assert {table: small_lake.version(table) for table in run.written} == versions


def test_a_screening_of_fewer_samples_is_refused_and_replaced(run_screen, small_lake):
    with pytest.raises(RunError, match="have not been run yet; run the step screen"):
        find_screening(small_lake, ScreenConfig(), POOLS)
    _, config = run_screen()
    put(small_lake, "samples", [talk("b", "s0", "Tell me a story about a fox and some dogs")])
    with pytest.raises(RunError, match=r"5 samples were screened, there are 6; run"):
        find_screening(small_lake, config, POOLS)
    run, _ = run_screen()
    assert (run.input, run.rejected["near_duplicate_text"]) == (6, 2)
    twins = rows_of(small_lake, "near_duplicates")
    assert {row["sample_id"]: row["kept"] for row in twins} == {"s1": "s0", "s2": "s0"}


@pytest.mark.soak
def test_what_a_test_set_says_and_the_settings_make_another_screening(
    run_screen, small_lake, tmp_path, test_set
):
    _, config = run_screen()
    other, _ = run_screen(near_duplicates={"threshold": 0.9})
    assert other.kept == 2
    (tmp_path / "eval.jsonl").write_text(json.dumps({"q": "Something else"}))
    with pytest.raises(RunError, match="not been run yet"):
        find_screening(small_lake, config, POOLS)
    without, _ = run_screen()
    assert without.rejected == {"near_duplicate_text": 1}
    assert len(rows_of(small_lake, "screenings")) == 3


def test_a_twin_of_a_question_stays_when_the_question_goes(lake, engines, test_set):
    reply = " ".join(f"word{number}" for number in range(100))
    far = "Tell me of dogs"
    put(lake, "samples", [talk("a", "s1", QUESTION, reply), talk("a", "s2", far, reply)])
    config = ScreenConfig(test_sets=[test_set])
    run = recorded(lake, engines, "screen", "r0", screen, config, ["a"])
    assert (run.kept, run.rejected) == (1, {"contaminated": 1})


def test_selection_leaves_out_what_was_found_and_says_why(run_screen, small_lake, engines):
    _, config = run_screen()
    name = find_screening(small_lake, config, POOLS)
    chosen_config = select_config({"name": "mine", "size": 10, "explain": True})
    step = (chosen_config, Sources("v1", screening=name), POOLS)
    run = recorded(small_lake, engines, "select", "s0", select, *step)
    assert sorted(chosen(small_lake)) == [("a", "s4"), ("b", "s2")]
    assert run.rejected == {"contaminated": 2, "near_duplicate_text": 1}
    told = {
        (row["sample_id"], row["pool"]): (row["reason"], json.loads(row["payload"]))
        for row in rows_of(small_lake, "rejects", step="select")
    }
    assert told["s1", "a"] == ("near_duplicate_text", {"kept": "s2", "similarity": 1.0})
    for pool in POOLS:
        reason, why = told["s3", pool]
        assert (reason, why["test_set"], why["question"]) == ("contaminated", "dogs", 1)
        assert why["text"] == QUESTION
    # Without the screening it is another selection.
    plain = recorded(small_lake, engines, "select", "s1", select, chosen_config, Sources("v1"), [])
    assert (plain.known, plain.kept) == (0, 4)


def test_questions_are_found_by_vectors_where_words_differ(run_screen, small_lake, engines):
    put(small_lake, "samples", [talk("a", "s5", "Which dog by the old mill did the fox prefer?")])
    embedding = SentenceEmbedConfig(dtype="float32")
    fingerprint = encoder_fingerprint(embedding)

    def encode(context, texts):
        return encode_texts(embedding, context, texts)

    encoder = QuestionEncoder(fingerprint, encode)
    with pytest.raises(RunError, match=r"no content has a vector of .*; run the step embed"):
        run_screen(encoder, embedding={})
    recorded(small_lake, engines, "embed", "e0", embed, embedding)
    run, _ = run_screen(encoder, embedding={"threshold": 0.8}, near_duplicates=None)
    assert run.rejected == {"contaminated": 3}
    found = {row["sample_id"]: row for row in rows_of(small_lake, "contaminations")}
    assert found.keys() == {"s3", "s5"}
    assert (found["s3"]["how"], found["s5"]["how"]) == ("ngram", "embedding")
    assert found["s5"]["overlap"] is None
    assert found["s5"]["turn"] is None
    assert 0.8 <= found["s5"]["similarity"] < found["s3"]["similarity"]


def test_settings_that_cannot_work_are_refused_before_anything_runs(lake, test_set, tmp_path):
    with pytest.raises(UsageError, match=r"screen: the step needs a section of its own"):
        check_screen(None)
    recipe = {"lake": lake.root, "steps": ["screen"]}
    gone = test_set | {"path": str(tmp_path / "gone.jsonl")}
    checked = validate(Recipe, recipe | {"screen": {"test_sets": [gone]}}, "r")
    with pytest.raises(UsageError, match=r"screen.test_sets.0.path=.*gone.jsonl: no such file"):
        check_before(checked, ["screen"])
    for wrong, said in [
        ({"near_duplicates": None}, "near_duplicates is null and test_sets is empty"),
        ({"test_sets": [test_set, test_set]}, "names dogs twice"),
        ({"test_sets": [test_set], "ngram": None}, "ngram and embedding are null"),
    ]:
        with pytest.raises(UsageError, match=said):
            validate(Recipe, recipe | {"screen": wrong}, "r")
    conversation = {"screen": {"embedding": {}}, "embed": {"text": "conversation"}}
    with pytest.raises(UsageError, match=r"set embed.text to instruction or query"):
        validate(Recipe, recipe | conversation, "r")
