"""New rows join an ontology version: what their tags become, what is counted, what is written."""

import random
from collections import Counter

import pyarrow as pa
import pytest
from click.testing import CliRunner

from handmade import answer, put, recorded, rows_of, sample
from tagsieve.cli import main
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import Lake
from tagsieve.ontology import NormalizeConfig, find_version, normalize

RULE = NormalizeConfig(steps=["frequency", "rule"], min_count=2, update="increment")
AUTO = RULE.model_copy(update={"update": "auto"})
ASSOCIATION = RULE.association.model_copy(update={"min_support": 3})


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


def test_what_was_rare_waits_until_it_is_met_often_enough(lake, run_normalize):
    put_queries(lake, {"q1": ["sql"], "q2": ["sql"], "q3": ["odd one"]})
    config = RULE.model_copy(update={"min_count": 3, "steps": ("frequency",)})
    run_normalize(config)
    put_queries(lake, {"q4": ["odd one", "SQL"], "q5": ["sql"]})
    run = run_normalize(config)
    assert update_of(lake) == {
        "odd one": (1, "rare", None, None),
        "SQL": (1, "pending", None, None),
        "sql": (1, "kept", "grown", "sql"),
    }
    assert run.rejected == {"rare": 1, "pending": 1}
    assert tags_of(lake) == {
        "s-q1": [[]], "s-q2": [[]], "s-q3": [[]], "s-q4": [[]], "s-q5": [["sql"]],
    }  # fmt: skip


@pytest.mark.parametrize("weight", ["queries", pytest.param("occurrences", marks=pytest.mark.soak)])
def test_counts_over_updates_are_those_of_all_rows(lake, run_normalize, weight):
    """With queries that several pools ask, some of which are answered late, or never."""
    drawn = random.Random(7)
    tags = [f"{word} {kind}" for word in "abcdefgh" for kind in ("data", "Data", "DATAS")]
    queries = {f"q{n}": drawn.sample(tags, drawn.randrange(5)) for n in range(40)}
    late = {"q3", "q17", "q31"}
    answered = set()
    config = RULE.model_copy(update={"weight": weight, "min_count": 4})
    for part in range(3):
        asked = [drawn.sample(sorted(queries)[: 14 * (part + 1)], 2) for _ in range(12)]
        put(
            lake,
            "samples",
            [
                sample(drawn.choice(["chat", "code"]), f"s{part}-{row}", pair, row=100 * part + row)
                for row, pair in enumerate(asked)
            ]
            + [sample("other", f"s{part}-0", asked[0], row=part)],
        )
        ready = {query for pair in asked for query in pair} - answered
        ready = ready if part == 2 else ready - late
        put(lake, "raw_tags", [answer(query, *queries[query]) for query in sorted(ready)])
        answered |= ready
        run_normalize(config)
    summed = Counter()
    for row in rows_of(lake, "ontology", version="v1"):
        summed[row["raw_tag"]] += row["count"]
    assert len(rows_of(lake, "ontology_updates")) == 2
    turns = [
        query for row in rows_of(lake, "samples") for query in row["query_ids"] if query in answered
    ]
    expected = Counter(
        tag for query in (set(turns) if weight == "queries" else turns) for tag in queries[query]
    )
    assert summed == expected
    assert tags_of(lake).keys() == {
        row["sample_id"] for row in rows_of(lake, "samples") if set(row["query_ids"]) <= answered
    }


@pytest.mark.soak
def test_rules_and_edits_of_the_version_hold_for_new_rows(lake, run_normalize, tmp_path):
    edits = tmp_path / "edits.yaml"
    edits.write_text("merge: [{into: databases, tags: [sql, mysql]}]\n")
    config = RULE.model_copy(
        update={
            "steps": ("frequency", "rule", "association"),
            "edits": str(edits),
            "association": ASSOCIATION,
        }
    )
    put_queries(lake, {f"q{n}": ["loop", "for loop", "SQL"] for n in range(3)})
    put_queries(lake, {f"p{n}": ["loop", "SQL"] for n in range(2)}, first=9)
    put_queries(lake, {"r1": ["loop", "for loop"]}, first=12)
    run_normalize(config)
    rules = {(tuple(r["antecedent"]), r["consequent"]) for r in rows_of(lake, "ontology_rules")}
    assert (("for loop",), "loop") in rules
    put_queries(lake, {"q7": ["for_loop", "loops", "MySQL"], "q8": ["loops"]}, first=20)
    run_normalize(config)
    assert update_of(lake) == {
        "for_loop": (1, "kept", "stem", "for loop"),
        "loops": (2, "kept", "stem", "loop"),
        "MySQL": (1, "kept", "edit", "databases"),
    }
    found = tags_of(lake)
    assert found["s-q0"] == found["s-q7"] == [["databases", "for loop"]]
    assert found["s-q8"] == [["loop"]]


@pytest.mark.soak
def test_rules_mined_before_the_rule_step_hold_for_new_rows(lake, run_normalize):
    """TACOS's order: rules are between raw tags there."""
    config = RULE.model_copy(
        update={
            "steps": ("frequency", "association", "rule"),
            "association": ASSOCIATION,
        }
    )
    put_queries(lake, {f"q{n}": ["Loops", "For_Loop"] for n in range(3)})
    put_queries(lake, {f"p{n}": ["Loops"] for n in range(2)}, first=9)
    run_normalize(config)
    put_queries(lake, {"q7": ["for-loop", "Loops"], "q8": ["loop"]}, first=20)
    run_normalize(config)
    found = tags_of(lake)
    assert found["s-q0"] == found["s-q7"] == [["for loop"]]
    assert found["s-q8"] == found["s-p0"] == [["loops"]]


def test_the_nearest_tag_within_eps_takes_an_unknown_one(lake, run_normalize):
    config = RULE.model_copy(
        update={
            "steps": ("frequency", "rule", "semantic"),
            "semantic": RULE.semantic.model_copy(update={"eps": 0.15}),
        }
    )
    put_queries(lake, {f"q{n}": ["Math Word Problem", "translation"] for n in range(2)})
    run_normalize(config)
    put_queries(lake, {"q7": ["arithmetic_word_problem", "cooking"]}, first=20)
    run_normalize(config)
    assert update_of(lake) == {
        "arithmetic_word_problem": (1, "kept", "similar", "math word problem"),
        "cooking": (1, "pending", None, None),
    }
    (row,) = rows_of(lake, "ontology", raw_tag="arithmetic_word_problem")
    assert (row["rule_tag"], row["semantic_tag"]) == (
        "arithmetic word problem", "math word problem",
    )  # fmt: skip


def test_an_update_writes_and_reads_in_proportion(lake, run_normalize, monkeypatch, spark):
    for part in range(4):
        put_queries(lake, {f"q{part}-{n}": ["sql", f"t{n}"] for n in range(50)}, first=100 * part)
    run_normalize()
    before = {name: lake.stored(name) for name in ("ontology", "tags", "raw_tags")}
    put_queries(lake, {"q-new": ["sql", "t3"]}, first=1000)
    read = []
    plain = type(spark.read).parquet

    def watched(reader, *paths, **options):
        read.extend(paths)
        return plain(reader, *paths, **options)

    monkeypatch.setattr(type(spark.read), "parquet", watched)
    run_normalize()
    new_answers = lake.stored("raw_tags").keys() - before["raw_tags"].keys()
    assert {path.rsplit("/", 1)[1] for path in read if "/raw_tags/" in path} == new_answers
    for name in ("ontology", "tags"):
        there = lake.stored(name)
        added = there.keys() - before[name].keys()
        assert before[name].keys() < there.keys()
        files = pa.table(lake.delta(name).get_add_actions(flatten=True)).to_pylist()
        rows = [row["num_records"] for row in files if row["path"].rsplit("/", 1)[1] in added]
        assert sum(rows) == (2 if name == "ontology" else 1)


@pytest.mark.soak
def test_an_update_finds_the_files_of_a_tagger_with_any_name(lake, engines):
    tagger = "http-{my} model[1]*%7E:ü-0"
    for number, queries in enumerate((["q1", "q2"], ["q3"])):
        rows = [sample("chat", f"s-{q}", [q], row=number * 9 + n) for n, q in enumerate(queries)]
        put(lake, "samples", rows)
        put(lake, "raw_tags", [answer(query, "sql", tagger=tagger) for query in queries])
        recorded(lake, engines, "normalize", f"r{number}", normalize, tagger, RULE)
    assert tags_of(lake) == {"s-q1": [["sql"]], "s-q2": [["sql"]], "s-q3": [["sql"]]}


def cut_before(monkeypatch, table, run):
    """A run that is killed before it writes to this table."""
    with monkeypatch.context() as patched:
        for name in ("append_next", "replace", "append"):
            plain = getattr(Lake, name)

            def cut(self, *args, plain=plain, **kwargs):
                if table in args[:2]:
                    raise KeyboardInterrupt
                return plain(self, *args, **kwargs)

            patched.setattr(Lake, name, cut)
        with pytest.raises(KeyboardInterrupt):
            run()


@pytest.mark.soak
def test_a_build_after_an_update_that_was_cut_off_counts_all_raw_tags(
    lake, run_normalize, monkeypatch
):
    put_queries(lake, {"q1": ["sql"], "q2": ["sql"]})
    run_normalize()
    put_queries(lake, {"q3": ["sql", "new"]}, first=10)
    cut_before(monkeypatch, "tags", run_normalize)
    put_queries(lake, {"q4": ["a", "b", "c", "d"], "q5": ["new"]}, first=20)
    run = run_normalize(AUTO)
    assert find_version(lake, "t", AUTO) == "v2"
    assert tags_of(lake)["s-q3"] == [["sql"]]
    assert (run.input, run.kept, run.known, run.rejected) == (6, 2, 0, {"rare": 4})


@pytest.mark.parametrize("table", ["ontology", pytest.param("tags", marks=pytest.mark.soak)])
def test_an_update_that_was_cut_off_is_done_first_of_the_same_rows(
    lake, run_normalize, monkeypatch, table
):
    """Killed before the write to each table; meanwhile more rows come."""
    put_queries(lake, {"q1": ["sql"], "q2": ["sql"]})
    run_normalize()
    put_queries(lake, {"q3": ["SQL", "new"]}, first=10)
    cut_before(monkeypatch, table, run_normalize)
    assert "s-q3" not in tags_of(lake)
    put_queries(lake, {"q4": ["new", "sql"]}, first=20)
    run_normalize()
    assert tags_of(lake)["s-q3"] == [["sql"]]
    assert tags_of(lake)["s-q4"] == [["new", "sql"]]
    counts = Counter()
    for row in rows_of(lake, "ontology", version="v1"):
        counts[row["raw_tag"]] += row["count"]
    assert counts == {"sql": 3, "SQL": 1, "new": 2}
    updates = rows_of(lake, "ontology_updates")
    assert [row["samples"] for row in updates] == [1, 1]


def test_auto_makes_a_version_anew_when_that_is_due(lake, run_normalize):
    put_queries(lake, {f"q{n}": ["sql", "data"] for n in range(10)})
    run_normalize()
    put_queries(lake, {"p1": ["sql", "x"]}, first=20)
    run_normalize(AUTO)
    (row,) = rows_of(lake, "ontology_updates")
    assert (row["due"], row["pending"]) == (None, 1)
    put_queries(lake, {"p2": ["sql", "y"]}, first=30)
    run_normalize()
    due = (
        "8% of all occurrences of tags lack a tag beyond what the build left "
        "(rebuild_when.pending=0.05)"
    )
    assert [row["due"] for row in rows_of(lake, "ontology_updates", update=2)] == [due]
    told = CliRunner().invoke(main, ["status", "--lake", lake.root]).output
    assert "50.0%" in told  # of the occurrences in updates wait
    assert f"v1: a rebuild is due: {due}; normalize.update=rebuild makes one" in told
    put_queries(lake, {"p3": ["x"]}, first=40)
    run_normalize(AUTO)
    assert find_version(lake, "t", AUTO) == "v2"
    assert tags_of(lake, "v2")["s-p3"] == [["x"]]
    assert tags_of(lake, "v2")["s-p1"] == [["sql", "x"]]
    assert len(rows_of(lake, "ontology_updates")) == 2


@pytest.mark.soak
def test_a_pinned_version_takes_new_rows_by_its_own_settings(lake, run_normalize):
    put_queries(lake, {"q1": ["sql"], "q2": ["SQL"], "q3": ["sql"]})
    run_normalize()
    other = RULE.model_copy(update={"min_count": 1})
    run_normalize(other)
    put_queries(lake, {"q4": ["SQL", "new"]}, first=10)
    pinned = other.model_copy(update={"version": "v1"})
    run_normalize(pinned)
    assert tags_of(lake)["s-q4"] == [["sql"]]
    assert "s-q4" not in tags_of(lake, "v2")
    assert find_version(lake, "t", pinned) == "v1"
    assert find_version(lake, "t", other) == "v2"
    with pytest.raises(UsageError, match=r"normalize.version=v1: it is of tagger t, and .* is u"):
        find_version(lake, "u", pinned)
    with pytest.raises(UsageError, match=r"there is no ontology version 'v7'; known: v1, v2"):
        find_version(lake, "t", other.model_copy(update={"version": "v7"}))
    with pytest.raises(ValueError, match="pins a version, and update=rebuild asks for another"):
        NormalizeConfig(version="v1", update="rebuild")


def test_a_version_of_another_encoder_is_not_updated(lake, run_normalize):
    put_queries(lake, {"q1": ["sql"], "q2": ["sql"]})
    config = RULE.model_copy(update={"steps": ("frequency", "semantic")})
    run_normalize(config)
    put_queries(lake, {"q3": ["sql"]}, first=10)
    made = {**rows_of(lake, "ontology_versions")[0], "version": "v2", "encoder": "lost-phrase-0"}
    put(lake, "ontology_versions", [made])
    with pytest.raises(RunError, match=r"version v2 was made with the phrase encoder lost-phrase"):
        run_normalize(config.model_copy(update={"version": "v2"}))
