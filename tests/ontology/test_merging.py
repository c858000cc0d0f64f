"""What association rules drop from one query."""

from hypothesis import given
from hypothesis import strategies as st

from parity import association as reference
from tagsieve.ontology.merging import dropped, root


def left(items, *rules):
    """What stays of items (most frequent first) under rules `"antecedent>consequent"`."""
    place = {item: number for number, item in enumerate(items)}
    made = [
        (tuple(place[a] for a in rule.split(">")[0]), place[rule.split(">")[1]]) for rule in rules
    ]
    gone = dropped(range(len(items)), made)
    assert gone == dropped(range(len(items)), made[::-1]) == sorted(gone)
    return "".join(item for item in items if place[item] not in gone)


def test_implied_tag_leaves():
    assert left("ab", "b>a") == "b"
    assert left("ab", "a>b") == "a"


def test_chain_is_taken_at_once():
    # One after the other, {D, A, C} could end as {D} or as {C, D}.
    assert left("cad", "d>a", "a>c") == "d"


def test_circle_keeps_its_most_frequent():
    assert left("abc", "b>a", "a>b") == "ac"
    assert left("abc", "a>b", "b>c", "c>a") == "a"


def test_circle_gives_way_to_a_tag_outside_of_it():
    assert left("abx", "a>b", "b>a", "x>a") == "x"
    assert left("abx", "a>b", "b>a", "x>b") == "ax"


def test_longer_antecedents_drop_what_stands_with_one_of_them():
    assert left("abc", "bc>a") == "bc"
    # What a longer rule needs may be dropped by another one.
    assert left("abcd", "bc>a", "d>b") == "cd"


def test_no_set_empties():
    # for loop => loop, for loop => control flow, {loop, control flow} => for loop
    assert left("lcf", "f>l", "f>c", "lc>f") == "f"
    assert left("abc", "bc>a", "ac>b", "ab>c") == "c"
    assert left("abd", "b>a", "ad>b", "ab>d") == "d"


def test_root_ends_in_the_least_of_a_circle():
    assert root(1, {}) == 1
    assert root(3, {3: 2, 2: 1}) == 1
    assert root(9, {9: 5, 5: 7, 7: 5}) == 5
    assert root(7, {5: 7, 7: 5}) == 5


ITEMS = st.integers(0, 6)
RULES = st.lists(
    st.tuples(st.sets(ITEMS, min_size=1, max_size=3), ITEMS).filter(lambda r: r[1] not in r[0]),
    max_size=12,
)


@given(st.sets(ITEMS, min_size=1), RULES)
def test_dropped_is_that_of_the_reference_and_leaves_something(items, rules):
    holding = [(tuple(sorted(x)), c) for x, c in rules if x <= items and c in items]
    gone = dropped(items, holding)
    assert items - set(gone) == reference.left(items, holding)
    assert items - set(gone)
