"""Questions of test sets in turns, against a loop over all turns and questions."""

import random

import pytest

from handmade import sample
from parity import screening
from tagsieve.screening.config import NGramConfig
from tagsieve.screening.contamination import contaminated_turns

SCHEMA = "sample_id string, turns array<struct<role:string,content:string>>"
QUESTION = "How many wizards does it take to watch a quick brown fox from a hill?"


@pytest.fixture
def find(spark, make_context):
    def find(samples, questions, partitions=4, **config):
        """`samples`: lists of (role, text); gives (sample, question) -> (turn, overlap)."""
        rows = [
            (f"s{number}", sample("a", "s", turns=turns)["turns"])
            for number, turns in enumerate(samples)
        ]
        frame = spark.createDataFrame(rows, SCHEMA).repartition(partitions)
        listed = [("t", number, text) for number, text in enumerate(questions)]
        asked = spark.createDataFrame(listed, "test_set string, question long, text string")
        config = NGramConfig(**config)
        found = contaminated_turns(make_context("screen"), config, frame, asked).collect()
        return {
            (int(row["sample_id"][1:]), row["question"]): (row["turn"], row["overlap"])
            for row in found
        }

    return find


def human(*texts):
    return [[("user", text), ("assistant", "yes")] for text in texts]


@pytest.mark.parametrize(("size", "counts"), [(1, [4]), (2, [1, 32]), (3, [4])])
def test_overlaps_equal_those_of_a_loop_whatever_the_partitions(find, size, counts):
    rng = random.Random(3)
    vocabulary = [f"w{number}" for number in range(30)]
    questions = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 20))) for _ in range(25)]
    turns = [" ".join(rng.choices(vocabulary, k=rng.randint(0, 40))) for _ in range(60)]
    for question in questions:
        words = question.split()
        words[rng.randrange(len(words))] = rng.choice(vocabulary)
        turns += [question.upper(), f"Please tell me: {' '.join(words)}?"]
    wanted = screening.overlaps(turns, questions, size, 0.5)
    assert 40 < len(wanted) < 1000
    for partitions in counts:
        found = find(human(*turns), questions, partitions, size=size, min_overlap=0.5)
        assert {key: overlap for key, (_, overlap) in found.items()} == pytest.approx(wanted)
        assert {turn for turn, _ in found.values()} == {0}


def test_planted_questions_are_found_and_others_are_not(find):
    others = ["How many people does it take to change a light bulb?", "What is a hill?", "", "?!"]
    turns = [
        QUESTION,
        QUESTION.upper(),
        QUESTION.replace(" ", " -- ").strip("?"),
        QUESTION.replace("quick", "slow"),
        QUESTION.replace("brown ", ""),
        QUESTION.replace("brown", "small brown"),
        f"I have been asked this in class today and need an answer. {QUESTION} Thank you!",
    ]
    found = find(human(*turns, *others), [QUESTION, "hello"])
    assert found.keys() == {(place, 0) for place in range(len(turns))}


def test_short_questions_match_only_turns_of_the_same_words(find):
    turns = ["What is 2+2?", "what is 2 2", "Tell me, what is 2+2?", "What is 2+3?"]
    assert find(human(*turns), ["What is 2+2?"]) == {(0, 0): (0, 1.0), (1, 0): (0, 1.0)}


def test_later_turns_are_looked_at_and_replies_where_asked(find):
    asked = [
        [("system", QUESTION), ("user", "hi"), ("assistant", "yes"), ("user", QUESTION)],
        [("user", "hi"), ("assistant", QUESTION)],
    ]
    assert find(asked, [QUESTION]) == {(0, 0): (3, 1.0)}
    found = find(asked, [QUESTION], turns="all")
    assert found == {(0, 0): (0, 1.0), (1, 0): (1, 1.0)}


def test_a_pool_of_nothing_but_the_question_is_contaminated(find):
    assert find(human(QUESTION), [QUESTION]) == {(0, 0): (0, 1.0)}
    assert find(human("?"), [QUESTION]) == {}


def test_scripts_without_spaces_are_compared_by_their_letters(find):
    question = "请写一首关于春天的诗，要求语言优美，并且包含花朵和小鸟。"
    edited = question.replace("小鸟", "河流").replace("，", " ")
    assert find(human(edited, "请写一个关于冬天的故事。"), [question]).keys() == {(0, 0)}
