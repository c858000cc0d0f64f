"""New rows join an ontology version: what their tags become, what is counted, what is written."""

import random
from collections import Counter

import pytest

from handmade import answer, put, recorded, rows_of, sample
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import Lake
from tagsieve.ontology import NormalizeConfig, find_version, normalize

RULE = NormalizeConfig(steps=["frequency", "rule"], min_count=2, update="increment")


def put_queries(lake, answers, pool="chat", first=0):
    """A sample for each query, which has these tags; `answers`: query -> tags."""
    rows = enumerate(answers, first)
    put(lake, "samples", [sample(pool, f"s-{query}", [query], row=row) for row, query in rows])
    put(lake, "raw_tags", [answer(query, *tags) for query, tags in answers.items()])


def update_of(lake, version="v1"):
    """Raw tag -> (count, status, how, tag) of the newest update."""
    rows = rows_of(lake, "ontology", version=version)
    newest = max(row["update"] for row in rows)
    return {
        row["raw_tag"]: (row["count"], row["status"], row["how"], row["tag"])
        for row in rows
        if row["update"] == newest
    }


def tags_of(lake, version="v1"):
    rows = rows_of(lake, "tags", ontology_version=version)
    assert len({row["sample_id"] for row in rows}) == len(rows)
    return {row["sample_id"]: row["turn_tags"] for row in rows}


@pytest.fixture
def run_normalize(lake, engines):
    """Run normalize of tagger t; gives its line of the ledger."""
    runs = iter(range(100))

    def run(config=RULE):
        return recorded(lake, engines, "normalize", f"r{next(runs)}", normalize, "t", config)

    return run


def test_new_tags_are_known_come_by_stem_grow_or_wait(lake, run_normalize):
    put_queries(lake, {"q1": ["Data_Base", "rarity"], "q2": ["Data_Base"]})
    run_normalize()
    put_queries(
        lake,
        {
            "q3": ["Data_Base", "data bases", "new topic"],
            "q4": ["New Topics", "new topic", "lonely"],
            "q5": ["rarity"],
        },
    )
    run = run_normalize()
    assert update_of(lake) == {
        "Data_Base": (1, "kept", "built", "data base"),
        "data bases": (1, "kept", "stem", "data base"),
        "new topic": (2, "kept", "grown", "new topic"),
        "New Topics": (1, "kept", "stem", "new topic"),
        "lonely": (1, "pending", None, None),
        "rarity": (1, "kept", "grown", "rarity"),
    }
    assert (run.input, run.kept, run.known, run.rejected) == (6, 4, 1, {"pending": 1})
    assert tags_of(lake) == {
        "s-q1": [["data base"]],
        "s-q2": [["data base"]],
        "s-q3": [["data base", "new topic"]],
        "s-q4": [["new topic"]],
        "s-q5": [["rarity"]],
    }
    (told,) = rows_of(lake, "ontology_updates")
    figures = ("samples", "queries", "occurrences", "known", "by_stem", "grown", "pending", "rare")
    assert [told[name] for name in figures] == [3, 3, 7, 1, 2, 3, 1, 0]

    put_queries(lake, {"q6": ["lonely", "topics, new"], "q7": ["Lonely"]})
    run_normalize()
    assert update_of(lake) == {
        "lonely": (1, "kept", "grown", "lonely"),
        "Lonely": (1, "kept", "stem", "lonely"),
        "topics, new": (1, "pending", None, None),
    }
    assert tags_of(lake)["s-q4"] == [["new topic"]]  # as it was: old rows wait for a rebuild
    again = run_normalize()
    assert (again.input, again.known, again.written) == (3, 3, {})
    assert len(rows_of(lake, "ontology_versions")) == 1
