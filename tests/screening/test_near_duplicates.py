"""Near-duplicates by MinHash LSH against a comparison of all pairs."""

import random

import pytest

import tagsieve.screening.near_duplicates as module
from handmade import sample
from parity import screening
from tagsieve.screening.config import NearDuplicateConfig
from tagsieve.screening.near_duplicates import near_duplicates

SCHEMA = "pool string, sample_id string, turns array<struct<role:string,content:string>>"
SENTENCE = "the quick brown fox jumps over the lazy dog while seven wizards watch from a green hill"


@pytest.fixture
def find(spark, make_context):
    def find(rows, pools=("a",), partitions=4, **config):
        """`rows`: (pool, id, text of the answer); gives id -> (kept, similarity)."""
        made = [
            (r["pool"], r["sample_id"], r["turns"])
            for pool, key, text in rows
            for r in [sample(pool, key, turns=[("user", "ask"), ("assistant", text)])]
        ]
        frame = spark.createDataFrame(made, SCHEMA).repartition(partitions)
        config = NearDuplicateConfig(**config)
        found = near_duplicates(make_context("screen"), config, frame, list(pools)).collect()
        assert len({row["sample_id"] for row in found}) == len(found)
        return {row["sample_id"]: (row["kept"], row["similarity"]) for row in found}

    return find


def with_edits(rng, vocabulary, groups, most):
    """Texts of random words, each with some copies of which a few words are replaced."""
    texts = []
    for _ in range(groups):
        text = rng.choices(vocabulary, k=rng.randint(8, 120))
        texts.append(text)
        for _ in range(rng.randint(0, most)):
            copy = list(rng.choice(texts[-3:]))
            for _ in range(rng.randint(0, 4)):
                copy[rng.randrange(len(copy))] = rng.choice(vocabulary)
            texts.append(copy)
    rng.shuffle(texts)
    return [("a", f"s{number:04}", " ".join(text)) for number, text in enumerate(texts)]


def in_order(rows):
    """Ids and texts (of all turns) in the order of who stays, of one pool."""
    said = [(key, f"ask\n{text}") for _, key, text in rows]
    return sorted(said, key=lambda row: (-len(screening.words(row[1])), row[0]))


@pytest.mark.parametrize(
    ("shingle", "counts"), [({}, [1, 4, 32]), ({"of": "characters", "size": 12}, [4])]
)
def test_all_twins_of_a_seeded_pool_are_found_whatever_the_partitions(find, shingle, counts):
    rng = random.Random(7)
    vocabulary = [f"w{number}" for number in range(400)]
    rows = with_edits(rng, vocabulary, groups=80, most=4)
    wanted = screening.twins(in_order(rows), **shingle)
    assert len(wanted) > 40
    for partitions in counts:
        assert find(rows, partitions=partitions, shingle=shingle) == wanted  # recall 100 %


def test_planted_twins_name_the_text_that_stays(find):
    edited = SENTENCE.replace("hill", "mountain")
    chinese = "请写一首关于春天的诗，要求语言优美，并且包含花朵、小鸟和河流等意象。"
    rows = [
        ("b", "verbatim", SENTENCE),
        ("a", "original", SENTENCE + "!"),
        ("a", "punctuation", SENTENCE.upper().replace(" ", ", ")),
        ("b", "edited", edited),
        ("a", "other", "something else altogether, of which nothing at all stands anywhere above"),
        ("a", "chinese", chinese),
        ("a", "chinese2", chinese.replace("，", " ").replace("。", "!")),
        ("a", "chinese3", chinese.replace("意象。", "意。")),
        ("a", "empty", "..."),
    ]
    found = find(rows, pools=["a", "b"])
    assert found.keys() == {"verbatim", "punctuation", "edited", "chinese2", "chinese3"}
    assert {key: kept for key, (kept, _) in found.items()} == {
        "verbatim": "original",
        "punctuation": "original",
        "edited": "original",
        "chinese2": "chinese",
        "chinese3": "chinese",
    }
    assert found["verbatim"][1] == found["punctuation"][1] == found["chinese2"][1] == 1.0
    own, other = (screening.shingles(f"ask {text}") for text in (SENTENCE, edited))
    assert found["edited"][1] == screening.jaccard(own, other)
    # Of two pools, the first one keeps it; not named ones follow by name.
    assert find(rows, pools=["b"])["original"][0] == "edited"
    assert find(rows, pools=[])["verbatim"][0] == "original"


def test_a_chain_of_twins_leads_to_no_removal_of_what_is_like_no_kept_text(find):
    base = [f"w{number}" for number in range(100)]
    chain = [" ".join(base[start : start + 50]) for start in (0, 4, 8, 12, 16)]
    rows = [("a", f"s{number}", text) for number, text in enumerate(chain)]
    found = find(rows, threshold=0.8)
    assert (
        found
        == screening.twins(in_order(rows))
        == {
            "s1": ("s0", pytest.approx(0.82, abs=0.03)),
            "s3": ("s2", pytest.approx(0.82, abs=0.03)),
        }
    )


def test_texts_in_one_bucket_cost_no_square_and_all_find_a_twin(find, monkeypatch):
    monkeypatch.setattr(module, "NEIGHBOURS", 2)
    base = [f"w{number}" for number in range(200)]
    rows = []
    for number in range(120):
        text = list(base)
        text[number] = f"x{number}"
        rows.append(("a", f"s{number:03}", " ".join(text)))
    found = find(rows)
    assert len(found) == 119
    texts = {key: screening.shingles(f"ask {text}") for _, key, text in rows}
    for key, (kept, similarity) in found.items():
        assert kept not in found
        assert similarity == screening.jaccard(texts[key], texts[kept]) >= 0.8


def test_instruction_compares_the_first_human_turn_alone(find):
    rows = [("a", f"s{number}", f"{number} {SENTENCE[number:]}") for number in range(3)]
    found = find(rows, text="instruction")
    assert found == {"s1": ("s0", 1.0), "s2": ("s0", 1.0)}
