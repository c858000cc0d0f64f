"""What models write, read strictly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsieve.engines.llm.replies import Reply
from tagsieve.evolving.replies import read_scores, read_variant, shown_order

PARENT = "Write a poem about the sea."


def marked(text):
    return f"<evolved>\n{text}\n</evolved>"


@pytest.mark.parametrize(
    ("answer", "variant"),
    [
        (marked("Write a sad poem."), "Write a sad poem."),
        (f"Sure!\n{marked('Write a sad poem.')}\nEnjoy.", "Write a sad poem."),
        (f"<think>{marked('No.')} or so</think>{marked('Write two poems.')}", "Write two poems."),
        (marked("Use <b>HTML</b> & a\n\n| table |"), "Use <b>HTML</b> & a\n\n| table |"),
        (marked("Say that you can't swim."), "Say that you can't swim."),
    ],
)
def test_variant_is_what_stands_between_the_marks(answer, variant):
    assert read_variant(Reply(answer), PARENT, 100) == (variant, None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "unmarked"),
        ("Write a sad poem.", "unmarked"),
        ("<evolved>Write a sad poem.", "unmarked"),
        (f"<think>{marked('Never ended')}", "unmarked"),
        (marked(" \n\u3000"), "empty"),
        (marked(PARENT), "unchanged"),
        (marked("write a  POEM about the sea."), "unchanged"),
        ("I'm sorry, but I can't help with that.", "refused"),
        (marked("I cannot rewrite this."), "refused"),
        (marked("As an AI language model, I do not."), "refused"),
        (marked("#Rewritten Prompt#: Write a sad poem."), "scaffolding"),
        (marked("Here is the rewritten prompt: be sad"), "scaffolding"),
        (marked("<request>\nWrite a sad poem.\n</request>"), "scaffolding"),
        (marked(marked("Write a sad poem.")), "scaffolding"),
        (marked("x" * 101), "too_long"),
    ],
)
def test_variant_that_cannot_be_used_says_why(answer, reason):
    told, found = read_variant(Reply(answer), PARENT, 100)
    assert (found, bool(told)) == (reason, True)


def test_variant_of_an_answer_that_was_cut_is_none_even_with_both_marks():
    assert read_variant(Reply(marked("Good."), cut=True), PARENT, 100)[1] == "cut"


def test_variant_may_keep_what_its_parent_has():
    parent = "I'm sorry, what is the ## New Request of <request> in <Response code='1'>?"
    variant = "I'm sorry, but what is the ## New Request of <request> in <Response code='1'> here?"
    assert read_variant(Reply(marked(variant)), parent, 1000) == (variant, None)
    assert read_variant(Reply(marked(f"{variant} <variant 3>")), parent, 1000)[1] == "scaffolding"


@given(st.text())
def test_variant_of_any_text_is_clean_or_an_error(text):
    told, reason = read_variant(Reply(text), PARENT, 100)
    assert reason or (told.strip() == told != "" and "evolved>" not in told)


def scores(*pairs):
    return json.dumps({"scores": [{"variant": v, "score": s} for v, s in pairs]})


@given(st.permutations(range(1, 7)), st.lists(st.integers(1, 6), min_size=6, max_size=6))
def test_scores_come_back_by_variant_whatever_their_order(order, values):
    answer = scores(*((variant, values[variant - 1]) for variant in order))
    for around in ("{}", "Here:\n```json\n{}\n```\nVariant 2 wins {{1}}.", "<think>3</think> {}"):
        assert read_scores(around.format(answer), 6) == (values, None)
    lines = "\n".join(json.dumps({"variant": v, "score": values[v - 1]}) for v in order)
    assert read_scores(lines, 6) == (values, None)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("", "no score of variant 1, 2, 3 of 3"),
        ("[1] Score: 2 [2] Score: 3 [3] Score: 4", "no score of variant 1, 2, 3"),
        (scores((1, 2), (3, 4)), "no score of variant 2 of 3"),
        (scores((1, 2), (2, 3), (3, 4), (2, 3)), "variant 2 is scored 2 times"),
        (scores((1, 2), (2, 3), (3, 4), (4, 4)), "variant 4 is scored, and there are 3"),
        (scores((1, 2), (2, 3), (3, 4), ("a", 4)), "variant -1 is scored"),
        (scores((1, 0), (2, 3), (3, 4)), "0 is no score"),
        (scores((1, 7), (2, 3), (3, 4)), "7 is no score"),
        (scores((1, 2.5), (2, 3), (3, 4)), "2.5 is no score"),
        (scores((1, None), (2, 3), (3, 4)), "-1 is no score"),
        (scores((1, True), (2, 3), (3, 4)), "-1 is no score"),
        (scores((1, float("nan")), (2, 3), (3, 4)), "-1 is no score"),
        (scores((1, 2), (2, 3), (3, 4))[:-6], "no score of variant 3"),
        (f"<think>{scores((1, 2), (2, 3), (3, 4))}", "no score of variant 1, 2, 3"),
        ('{"variant": ' + "[" * 200_000 + "}", "no score of variant 1, 2, 3"),
    ],
)
def test_scores_that_are_not_whole_are_none(answer, told):
    found, error = read_scores(answer, 3)
    assert found == []
    assert told in error


@given(st.text() | st.text('{}[]",:1variantscore \\'), st.integers(1, 7))
def test_scores_of_any_text_are_whole_or_an_error(text, count):
    found, error = read_scores(text, count)
    assert error if not found else len(found) == count


def test_order_is_a_permutation_that_depends_on_the_judgement():
    ids = [f"v{n}" for n in range(6)]
    orders = [shown_order(f"j{n}", ids) for n in range(2000)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert shown_order("j0", ids) == orders[0]
    firsts = [sum(order[0] == index for order in orders) for index in range(6)]
    assert all(250 < often < 420 for often in firsts)
