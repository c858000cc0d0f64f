"""The normalize and analyze steps on a lake made by hand: versions, reruns, what was cut off."""

from datetime import UTC, datetime

import pytest

from handmade import answer, put, recorded, rows_of, sample, tagged
from tagsieve.comparing.tags import newest_version
from tagsieve.engines.context import Context
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.ontology import AnalyzeConfig, NormalizeConfig, analyze, find_version, normalize
from tagsieve.ontology.building import Build
from tagsieve.ontology.step import identity

CONFIG = NormalizeConfig(steps=["frequency", "rule"], min_count=2)


@pytest.fixture
def small_lake(lake):
    """Three queries in four samples; one query was not answered yet."""
    put(
        lake,
        "samples",
        [
            sample("code", "s1", ["q1", "q2"]),
            sample("code", "s2", ["q3"], row=1),
            sample("chat", "s1", ["q1", "q2"]),
            sample("chat", "s4", ["q4"], row=1),
        ],
    )
    put(
        lake,
        "raw_tags",
        [
            answer("q1", "Data_Base", "C++"),
            answer("q2", "data bases", "Data_Base"),
            answer("q3"),
            answer("q1", "other tagger", tagger="u"),
            answer("q2", "other tagger", tagger="u"),
        ],
    )
    return lake


def ontology_of(lake, version):
    rows = rows_of(lake, "ontology", version=version)
    return {row["raw_tag"]: (row["count"], row["status"], row["tag"]) for row in rows}


def tags_of(lake, version):
    rows = rows_of(lake, "tags", ontology_version=version)
    assert len({row["sample_id"] for row in rows}) == len(rows)
    return {row["sample_id"]: row["turn_tags"] for row in rows}


def test_normalize_over_a_cut_off_version_doubles_nothing_and_is_known_again(small_lake, engines):
    lake = small_lake
    put(lake, "ontology_versions", [version_row("v1")])
    row = {"count": 7, "status": "kept", "rule_tag": "x", "tag": "x", "update": 0}
    left = [("v1", "C++"), ("v2", "C++"), ("v2", "left over")]
    put(lake, "ontology", [row | {"version": v, "raw_tag": tag} for v, tag in left])
    put(lake, "tags", [tagged("s9", "x", version="v1"), tagged("s9", "x", version="v2")])
    put(lake, "raw_tags", [answer("q4", "c++", "C++", "data bases")])
    rebuild = CONFIG.model_copy(update={"update": "rebuild"})
    run = recorded(lake, engines, "normalize", "r2", normalize, "t", rebuild)
    assert ontology_of(lake, "v2") == {
        "Data_Base": (2, "kept", "data base"),
        "data bases": (2, "kept", "data base"),
        "C++": (2, "kept", "c++"),
        "c++": (1, "rare", None),
    }
    assert (run.input, run.kept, run.rejected) == (4, 3, {"rare": 1})
    assert run.metrics["distinct_tags"] == 2
    assert len(rows_of(lake, "ontology", version="v2")) == 4
    assert tags_of(lake, "v2") == {
        "s1": [["c++", "data base"], ["data base"]],
        "s2": [[]],
        "s4": [["c++", "data base"]],
    }
    assert ontology_of(lake, "v1") == {"C++": (7, "kept", "x")}
    versions = {row["version"]: row for row in rows_of(lake, "ontology_versions")}
    assert versions.keys() == {"v1", "v2"}
    assert (versions["v2"]["parent"], versions["v2"]["run_id"]) == ("v1", "r2")
    assert versions["v2"]["read_versions"] == {"samples": 1, "raw_tags": 2}
    assert find_version(lake, "t", CONFIG) == "v2"
    funnel = sorted(rows_of(lake, "tag_funnel"), key=lambda row: row["position"])
    assert [(row["stage"], row["tags"], row["occurrences"]) for row in funnel] == [
        ("raw", 4, 7),
        ("frequency", 3, 6),
        ("rule", 2, 6),
    ]

    again = recorded(lake, engines, "normalize", "r3", normalize, "t", rebuild)
    assert (again.input, again.known, again.kept, again.written) == (4, 4, 0, {})
    assert len(rows_of(lake, "ontology_versions")) == 2


@pytest.mark.parametrize(
    "where",
    ["ontology", "ontology_versions",
     *(pytest.param(where, marks=pytest.mark.soak) for where in ("rows-rule", "tags"))],
)  # fmt: skip
def test_a_build_that_was_cut_off_leaves_no_version_and_is_made_whole(
    small_lake, engines, monkeypatch, where
):
    """Killed between two steps, and before the write to each table."""
    lake = small_lake
    config = NormalizeConfig(
        steps=["frequency", "rule", "association"], min_count=2, association={"min_support": 2}
    )
    with monkeypatch.context() as patched:
        for of, name in ((Context, "stored"), (Lake, "replace"), (Lake, "append_once")):
            plain = getattr(of, name)

            def cut(self, *args, plain=plain):
                if where in [arg for arg in args if isinstance(arg, str)]:
                    raise KeyboardInterrupt
                return plain(self, *args)

            patched.setattr(of, name, cut)
        with pytest.raises(KeyboardInterrupt):
            recorded(lake, engines, "normalize", "r1", normalize, "t", config)
    with pytest.raises(RunError, match="no ontology version"):
        find_version(lake, "t", config)
    put(lake, "raw_tags", [answer("q4", "C++")])
    recorded(lake, engines, "normalize", "r2", normalize, "t", config)
    assert find_version(lake, "t", config) == "v1"
    assert ontology_of(lake, "v1") == {
        "Data_Base": (2, "kept", "data base"),
        "data bases": (1, "rare", None),
        "C++": (2, "kept", "c++"),
    }
    assert len(rows_of(lake, "ontology")) == 3
    assert tags_of(lake, "v1").keys() == {"s1", "s2", "s4"}
    assert {row["status"] for row in rows_of(lake, "runs", run_id="r1")} == {"failed"}


def test_a_build_that_was_cut_off_leaves_nothing_in_the_version_that_takes_its_number(
    lake, engines, monkeypatch
):
    put(lake, "samples", [sample("a", f"s{n}", [f"q{n}"], row=n) for n in range(3)])
    put(lake, "raw_tags", [answer(f"q{n}", "alpha", "beta") for n in range(3)])
    config = NormalizeConfig(
        steps=["frequency", "rule", "association"], min_count=1, association={"min_support": 2}
    )
    with monkeypatch.context() as patched:
        append_once = Lake.append_once

        def cut(self, name, *args):
            if name == "ontology_versions":
                raise KeyboardInterrupt
            return append_once(self, name, *args)

        patched.setattr(Lake, "append_once", cut)
        with pytest.raises(KeyboardInterrupt):
            recorded(lake, engines, "normalize", "r1", normalize, "t", config)
    assert rows_of(lake, "ontology_rules", version="v1")
    assert (newest_version(lake), tags_of(lake, "v1").keys()) == (None, {"s0", "s1", "s2"})
    recorded(lake, engines, "normalize", "r2", normalize, "t", CONFIG)
    assert newest_version(lake) == "v1"
    assert rows_of(lake, "ontology_rules") == rows_of(lake, "ontology_items") == []


def test_normalize_while_another_run_makes_a_version_is_refused(small_lake, engines, monkeypatch):
    """Of another tagger, too: both would take the same number."""
    lake = small_lake
    finish = Build.finish

    def meanwhile(build):
        monkeypatch.setattr(Build, "finish", finish)
        with pytest.raises(RunError, match=r"run r1 .* is at this work \(normalize\)"):
            recorded(lake, engines, "normalize", "r2", normalize, "u", CONFIG)
        return finish(build)

    monkeypatch.setattr(Build, "finish", meanwhile)
    recorded(lake, engines, "normalize", "r1", normalize, "t", CONFIG)
    recorded(lake, engines, "normalize", "r3", normalize, "u", CONFIG)
    made = {row["version"]: row["tagger"] for row in rows_of(lake, "ontology_versions")}
    assert made == {"v1": "t", "v2": "u"}
    assert {(row["ontology_version"], row["tagger"]) for row in rows_of(lake, "tags")} == {
        *made.items()
    }


def version_row(version, tagger="t", hour=3, config=CONFIG):
    created = datetime(2026, 11, 24, hour, tzinfo=UTC)
    made = {"version": version, "tagger": tagger, "created": created}
    return made | identity(config) | {"run_id": "by hand"}


def test_find_version_gives_the_newest_of_this_tagger_and_config(lake):
    other = NormalizeConfig(steps=["frequency", "rule"], min_count=3)
    versions = [
        version_row("v9", hour=1),
        version_row("v10", hour=2),
        version_row("v11", tagger="u"),
        version_row("v12", config=other),
    ]
    put(lake, "ontology_versions", versions)
    assert find_version(lake, "t", CONFIG) == "v10"
    assert find_version(lake, "t", other) == "v12"
    with pytest.raises(RunError, match=r"no ontology version of tagger w .* step normalize first"):
        find_version(lake, "w", CONFIG)
    with pytest.raises(RunError, match="with these normalize settings"):
        find_version(lake, "u", other)


def test_normalize_without_raw_tags_of_the_tagger_names_the_step_to_run(small_lake, engines):
    with pytest.raises(RunError, match=r"no raw tags of tagger x .* run the step tag"):
        recorded(small_lake, engines, "normalize", "r1", normalize, "x", CONFIG)
    (row,) = rows_of(small_lake, "runs")
    assert row["status"] == "failed"
    assert rows_of(small_lake, "ontology_versions") == []


def test_analyze_writes_the_figures_of_its_version_and_counts_the_untagged(small_lake, engines):
    lake = small_lake
    tags = [
        {"sample_id": "s1", "tags": ["sql"], "turn_tags": [["sql"], []]},
        {"sample_id": "s2", "tags": ["c++", "sql"], "turn_tags": [["c++", "sql"]]},
    ]
    put(lake, "tags", [row | {"tagger": "t", "ontology_version": "v1"} for row in tags])
    put(lake, "tags", [tags[0] | {"tagger": "t", "ontology_version": "v2", "tags": ["other"]}])
    run = recorded(lake, engines, "analyze", "r1", analyze, "v1", AnalyzeConfig())
    assert (run.input, run.kept, run.rejected) == (4, 3, {"untagged": 1})
    stats = {row["pool"]: row for row in rows_of(lake, "pool_stats", ontology_version="v1")}
    assert set(stats) == {"code", "chat"}
    assert [stats["code"][name] for name in ("tags", "diversity", "complexity")] == [2, 1.0, 1.0]
    assert (stats["chat"]["queries"], stats["chat"]["complexity"]) == (2, 0.5)
    recall = rows_of(lake, "pool_recall")
    assert {(r["pool"], r["other_pool"]): r["recall"] for r in recall}["code", "chat"] == 0.5
    again = recorded(lake, engines, "analyze", "r2", analyze, "v1", AnalyzeConfig())
    assert (again.input, again.known) == (4, 4)
    assert len(rows_of(lake, "pool_recall")) == 4
