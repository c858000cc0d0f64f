"""Two taggers compared: figures, tags only one gives, which tagger is meant, and reruns."""

import random
import shutil
from datetime import UTC, datetime

import pytest

from handmade import answer, put, recorded, rows_of, sample, tagged
from parity import agreement as reference
from tagsieve.console import Console
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.ledger import fingerprint
from tagsieve.ontology import AnalyzeConfig, NormalizeConfig, analyze
from tagsieve.ontology.agreement import agreement, answer_counts, answers_of, only_tags, query_tags
from tagsieve.ontology.comparing import Comparison, agreements
from tagsieve.ontology.config import PROTECTED, RuleConfig
from tagsieve.reporting import ExportConfig, ReportConfig, report

RAW_TAGS = "query_id string, tagger string, tags array<struct<tag: string, explanation: string>>"
FIGURES = ("queries", "equal", "jaccard", "precision", "recall", "f1", "macro_f1",
           "tags_per_query", "other_tags_per_query")  # fmt: skip
OTHER = "http-o'u=2 %/x"
"""A name with all that a path, a partition or SQL could stumble over."""

HERS = {"q1": ["SQL", "Data_Base"], "q2": ["poem", "C++"], "q3": ["sql"], "q4": [], "q5": ["sql"]}
HIS = {
    "q1": ["data bases", "sql", "databases"],
    "q2": ["poem", "c", "data base"],
    "q3": [],
    "q4": [],
    "q6": ["sql"],
    "q7": ["sql"],
}
"""Of q1 to q4, with spellings made one: {sql, data base} and {sql, data base, databases}; {poem,
c++} and {poem, c, data base}; {sql} and {}; {} and {}."""

EXPECTED = {
    "queries": 4,
    "equal": 1 / 4,
    "jaccard": (2 / 3 + 1 / 4 + 0 + 1) / 4,
    "precision": 3 / 5,
    "recall": 3 / 6,
    "f1": 2 * 3 / (5 + 6),
    "macro_f1": (4 / 5 + 2 / 5 + 0 + 1) / 4,
    "tags_per_query": 5 / 4,
    "other_tags_per_query": 6 / 4,
}


@pytest.fixture
def compared(spark):
    """What the relations give for two dicts query -> raw tags, and one of a third tagger."""

    def compare(this, other, partitions=2):
        rows = [
            (query, tagger, [(tag, "why") for tag in tags])
            for tagger, answers in (("t", this), ("u", other), ("third", this))
            for query, tags in answers.items()
        ]
        raw_tags = spark.createDataFrame(rows, RAW_TAGS).repartition(partitions)
        answers = answers_of(raw_tags, "t", "u").cache()
        tags = query_tags(answers, RuleConfig()).cache()
        counts = tuple(answer_counts(answers).first())
        only = {(row["side"], row["tag"]): row for row in only_tags(tags).collect()}
        figures = agreement(tags).first().asDict()
        tags.unpersist()
        answers.unpersist()
        assert tuple(figures) == FIGURES
        return figures, counts, {key: (row.queries, row.shared) for key, row in only.items()}

    return compare


def test_agreement_equals_hand_computed_values(compared):
    figures, counts, only = compared(HERS, HIS)
    assert figures == pytest.approx(EXPECTED)
    assert counts == (4, 1, 2)
    # Spellings of one stem are one tag, shown as the most frequent: `data base` twice, once plural.
    assert only == {
        ("this", "sql"): (1, 1),
        ("this", "c++"): (1, 0),
        ("other", "c"): (1, 0),
        ("other", "data base"): (1, 1),
        ("other", "databases"): (1, 0),
    }


@pytest.mark.parametrize(
    ("this", "other", "figures"),
    [
        ([], [], {"equal": 1, "jaccard": 1, "f1": 1, "macro_f1": 1, "precision": None}),
        (["a"], [], {"equal": 0, "jaccard": 0, "f1": 0, "macro_f1": 0, "recall": None}),
        ([], ["a"], {"equal": 0, "jaccard": 0, "f1": 0, "macro_f1": 0, "precision": None}),
    ],
)
def test_agreement_where_one_gives_no_tag_at_all(compared, this, other, figures):
    found = compared({"q": this}, {"q": other})[0]
    assert {name: found[name] for name in figures} == figures


def taggings(seed):
    """Two taggers' answers to some of 60 queries, in spellings of which some are one tag."""
    draw = random.Random(seed)
    spellings = [
        "Data_Base", "data bases", "data base", "C++", "c++", "C", "信息", "unit-test",
        "unit tests", "testing", "Test", ".NET", "net", "🙂", "connects", "connected",
    ]  # fmt: skip
    common = spellings[: draw.randint(3, len(spellings))]

    def answers():
        asked = [f"q{i}" for i in range(60) if draw.random() < 0.8]
        return {query: draw.choices(common, k=draw.choice([0, 1, 2, 5])) for query in asked}

    return answers(), answers()


@pytest.mark.parametrize("seed", range(5))
def test_agreement_of_random_taggings_equals_plain_python(compared, seed):
    this, other = taggings(seed)
    figures, counts, only = compared(this, other, partitions=1 + seed)
    expected, expected_only = reference.agreement(this, other, PROTECTED)
    assert figures == pytest.approx(expected)
    assert only == expected_only
    both = len(this.keys() & other.keys())
    assert counts == (both, len(this) - both, len(other) - both)


def version_row(version, **rule):
    config = NormalizeConfig(min_count=1, rule=RuleConfig(**rule)).model_dump_json()
    created = datetime(2026, 11, 24, tzinfo=UTC)
    return {"version": version, "tagger": "memory-t", "config": config, "created": created}


@pytest.fixture(scope="module")
def two_taggers(tmp_path_factory):
    """A lake with HERS by `memory-t`, HIS by OTHER, and more taggers; two versions of `memory-t`'s
    tags."""
    lake = Lake(str(tmp_path_factory.mktemp("two taggers") / "lake"))
    put(lake, "samples", [sample("p", f"s{n}", [f"q{n}"], row=n) for n in range(1, 8)])
    taggers = {"memory-t": HERS, OTHER: HIS, "vllm-a": {"q9": ["x"]}, "vllm-ab": HERS}
    answers = [
        answer(query, *tags, tagger=tagger)
        for tagger, given in taggers.items()
        for query, tags in given.items()
    ]
    put(lake, "raw_tags", answers)
    put(lake, "ontology_versions", [version_row("v1"), version_row("v2", stemmer="none")])
    put(lake, "tags", [tagged("s3", "sql")])
    return lake


@pytest.fixture(scope="module")
def after_first(two_taggers, engines, tmp_path_factory):
    """That lake after its first comparison, and the line of the ledger."""
    lake = copy_of(two_taggers, tmp_path_factory.mktemp("compared"))
    return lake, step(lake, engines, "r1", "http")


def copy_of(lake, folder):
    return Lake(str(shutil.copytree(lake.root, folder / "lake")))


def step(lake, engines, run_id, compare_tagger=None, version="v1"):
    config = AnalyzeConfig(compare_tagger=compare_tagger)
    return recorded(lake, engines, "analyze", run_id, analyze, version, config)


def figures_of(lake, other):
    (row,) = rows_of(lake, "tagger_agreement", tagger="memory-t", other=other)
    return row


def test_analyze_compares_with_the_tagger_that_a_beginning_names(after_first):
    lake, run = after_first
    row = figures_of(lake, OTHER)
    assert {name: row[name] for name in EXPECTED} == pytest.approx(EXPECTED)
    assert (row["queries_this_only"], row["queries_other_only"], row["run_id"]) == (1, 2, "r1")
    only = rows_of(lake, "tagger_only_tags", tagger="memory-t", other=OTHER)
    assert {(r["side"], r["tag"], r["queries"], r["shared"]) for r in only} == {
        ("this", "sql", 1, 1),
        ("this", "c++", 1, 0),
        ("other", "c", 1, 0),
        ("other", "data base", 1, 1),
        ("other", "databases", 1, 0),
    }
    assert run.metrics["agreement_f1"] == row["f1"]
    assert run.metrics["agreement_queries"] == 4
    assert {"tagger_agreement", "tagger_only_tags", "pool_stats"} <= run.written.keys()


def test_comparison_shows_its_figures_and_tags_side_by_side(after_first, capsys):
    lake, _ = after_first
    Comparison("memory-t", OTHER, RuleConfig()).show(lake, Console())
    shown = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    for words in (
        f"other: {OTHER} (its tags are taken for right)",
        "queries only the other answered 2",
        "micro F1 0.545",
        "c++ 1 0 c 1 0",
        "sql 1 1 data base 1 1",
        "databases 1 0",
    ):
        assert words.split() in shown


def test_analyze_compares_again_only_when_something_changed(after_first, engines, tmp_path):
    lake = copy_of(after_first[0], tmp_path)
    beside = {"tagger": "memory-t", "other": "vllm-ab", "f1": 0.125, "run_id": "by hand"}
    put(lake, "tagger_agreement", [beside])
    again = step(lake, engines, "r2", OTHER)  # the same tagger, by its whole name
    assert again.metrics["from_earlier_run"] == 1
    assert (again.written, figures_of(lake, OTHER)["run_id"]) == ({}, "r1")

    # By another rule step `data_base` and `data bases` are two tags; the pair's row is replaced.
    step(lake, engines, "r3", OTHER, version="v2")
    assert figures_of(lake, OTHER)["f1"] == pytest.approx(2 * 2 / (5 + 6))
    step(lake, engines, "r4", OTHER)
    assert figures_of(lake, OTHER)["f1"] == pytest.approx(EXPECTED["f1"])

    put(lake, "raw_tags", [answer("q5", "sql", tagger=OTHER)])
    more = step(lake, engines, "r5", OTHER)
    assert "from_earlier_run" not in more.metrics
    row = figures_of(lake, OTHER)
    assert (row["queries"], row["queries_this_only"], row["run_id"]) == (5, 0, "r5")
    assert figures_of(lake, "vllm-ab")["f1"] == 0.125
    assert len(rows_of(lake, "tagger_agreement")) == 2
    assert ("this", "sql", 2) in {
        (r["side"], r["tag"], r["shared"]) for r in rows_of(lake, "tagger_only_tags", other=OTHER)
    }


def test_analyze_without_another_tagger_is_what_it_was(two_taggers, engines, tmp_path):
    lake = copy_of(two_taggers, tmp_path)
    run = step(lake, engines, "r1")
    plain = {"pair_support": 10, "pair_tags": 50}  # what is not set is no part of the identity
    read = {"samples": lake.version("samples"), "tags": lake.version("tags")}
    assert run.fingerprint == fingerprint("analyze", read, "v1", plain)
    assert run.read == read
    assert lake.version("tagger_agreement") is None
    assert "agreement_f1" not in run.metrics
    put(lake, "raw_tags", [answer("q8", "new", tagger=OTHER)])
    assert step(lake, engines, "r2").metrics["from_earlier_run"] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("http-x", f"no tagger in raw_tags of lake .* starts with it; there: {OTHER}, memory-t, v"),
        ("vllm", "several taggers start with it: vllm-a, vllm-ab; write more of"),
        (
            "memory",
            f"that is the recipe's own tagger, memory-t; the others in lake .*: {OTHER}, vllm-a, v",
        ),
        ("vllm-a", "no query was answered by both: 5 by memory-t, 1 by that one; run the step tag"),
    ],
)
def test_analyze_with_a_tagger_it_cannot_compare_says_why(
    two_taggers, engines, tmp_path, given, said
):
    lake = copy_of(two_taggers, tmp_path)
    with pytest.raises(RunError, match=f"analyze.compare_tagger={given}: {said}"):
        step(lake, engines, "r1", given)
    assert rows_of(lake, "runs", run_id="r1")[0]["status"] == "failed"
    assert lake.tables() == [*two_taggers.tables(), "runs"]


def test_analyze_without_any_raw_tags_says_so(lake, engines):
    put(lake, "ontology_versions", [version_row("v1")])
    with pytest.raises(RunError, match=r"starts with it; there: none$"):
        step(lake, engines, "r1", "u")


def test_report_shows_what_its_tagger_was_compared_with(after_first, engines, tmp_path):
    lake, path = copy_of(after_first[0], tmp_path), tmp_path / "report.html"

    def html(run_id):
        configs = (ReportConfig(path=str(path)), ExportConfig())
        recorded(lake, engines, "report", run_id, report, *configs, "mine", "v1")
        return path.read_text(encoding="utf-8")

    shown = html("r2")
    assert "Agreement with other taggers" in shown
    for text in ("<td>http-o&#39;u=2 %/x</td>", ">0.545</td>", "sql 1 (1)", "data base 1 (1)"):
        assert text in shown
    # Another comparison makes the report anew; that of another tagger is not shown.
    figures = {**EXPECTED, "precision": None, "tagger": "memory-t", "other": "evil <b>"}
    put(lake, "tagger_agreement", [figures, {**figures, "tagger": "else", "other": "hidden"}])
    tag = {"tagger": "memory-t", "other": "evil <b>", "side": "other", "tag": "<i>"}
    put(lake, "tagger_only_tags", [tag | {"queries": 1_234, "shared": 5}])
    shown = html("r3")
    for text in ("<td>evil &lt;b&gt;</td>", ">–</td>", "&lt;i&gt; 1,234 (5)", "http-o&#39;u=2 %/x"):
        assert text in shown
    assert "hidden" not in shown


def test_report_of_a_lake_never_compared_has_no_such_section(lake):
    put(lake, "ontology_versions", [version_row("v1")])
    assert agreements(lake, "v1") == []
