"""The report: one file, no reference to anywhere else, and no text of the data is markup."""

import re

import pytest

from handmade import put, recorded, rows_of, sample, tagged
from pages import Elements, check_alone
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.reporting import ExportConfig, ReportConfig, report
from tagsieve.reporting.html import funnels

EVIL = "<script>alert(1)</script>\"'><img src=http://evil.example/x>"


@pytest.fixture(scope="module")
def full_lake(tmp_path_factory, engines):
    """A lake with hostile text wherever text of the data can stand."""
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    for step, *ledger in (
        ("ingest", "row", 12_345, 12_000, {"bad_json": 345}),
        ("analyze", "sample", 12_000, 11_999, {EVIL: 1}),
        ("select", "sample", 12_000, 4_321, {"not_selected": 7_679}),
    ):
        recorded(lake, engines, step, f"run of {step}", count_step(*ledger))
    turns = [("user", f"ask {EVIL}"), ("assistant", "long " * 200)]
    put(lake, "samples", [sample("p", "s1", turns=turns), sample("mute", "s2", row=1)])
    put(lake, "tags", [tagged("s1", "sql", f"tag {EVIL}"), tagged("s2")])
    chosen = {"selection": "mine", "rank": 0, "score": 2.0, "reason": "pass 1", "run_id": "r"}
    put(lake, "selections", [chosen | {"pool": "p", "sample_id": "s1"}])
    reject = {"run_id": "r", "step": "ingest", "source": f"file:///data/{EVIL}.jsonl"}
    payloads = {
        "bad_json": f'{{"broken": "{EVIL}'.encode(),
        "no_text": b"\xff\xfe",
        "duplicate": None,
    }
    rejects = [
        reject | {"source_row": row, "reason": reason, "payload": payload}
        for row, (reason, payload) in enumerate(payloads.items())
    ]
    # Refused by two runs: of nine places the first three are shown, once each.
    for run_id in ("r1", "r2"):
        repeated = reject | {"run_id": run_id, "source": "file:///far/many.jsonl"}
        rejects += [
            repeated | {"source_row": row, "reason": "too_long"} for row in range(12, 3, -1)
        ]
    put(lake, "rejects", rejects)
    put_figures(lake)
    return lake


def put_figures(lake):
    """What analyze writes, for a pool and one without tags."""
    version = {"ontology_version": "v1"}
    stats = version | {"queries": 2, "untagged_queries": 1, "complexity": 1.5}
    pools = [
        stats | {"pool": "p", "samples": 2, "tags": 7, "diversity": 0.25},
        stats | {"pool": "mute", "samples": 1, "tags": 0, "diversity": 0.0},
    ]
    put(lake, "pool_stats", pools)
    recall = {("p", "p"): 1.0, ("p", "mute"): 0.0, ("mute", "p"): None, ("mute", "mute"): None}
    pairs = [
        version | {"pool": pool, "other_pool": other, "recall": value}
        for (pool, other), value in recall.items()
    ]
    put(lake, "pool_recall", pairs)
    stages = [("raw", 9_730, 21_602), ("frequency", 1_234, 5_678), ("rule", 1_007, 5_678)]
    funnel = [
        version | {"position": position, "stage": stage, "tags": tags, "occurrences": uses}
        for position, (stage, tags, uses) in enumerate(stages)
    ]
    put(lake, "tag_funnel", funnel)
    put(lake, "ontology_versions", [{"version": "v1", "tagger": "t"}])
    # Of a build that was cut off.
    put(lake, "tag_funnel", [funnel[0] | {"ontology_version": "v2", "tags": 4_444}])


def count_step(unit, given, kept, rejected):
    """A step that does nothing but count."""

    def step(context):
        run = context.run
        run.unit, run.input, run.kept = unit, given, kept
        run.rejected.update(rejected)

    return step


@pytest.fixture(scope="module")
def run_report(full_lake, engines):
    def run(path, run_id, export_path="out"):
        configs = (ReportConfig(path=path), ExportConfig(path=str(export_path)))
        return recorded(full_lake, engines, "report", run_id, report, *configs, "mine", "v1")

    return run


@pytest.fixture(scope="module")
def html(run_report, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "new"
    run = run_report(None, "first", folder)
    assert (run.unit, run.input, run.kept) == ("file", 1, 1)
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    return (folder / "report.html").read_text("utf-8")


def test_report_refers_to_nothing_outside_itself(html):
    check_alone(html)


def test_report_shows_three_places_of_a_reason_however_often_they_were_refused(html):
    text = " ".join(" ".join(Elements(html).words).split())
    assert re.findall(r"many\.jsonl:\d+", text) == [f"many.jsonl:{row}" for row in (4, 5, 6)]
    assert "18 × too_long" in text


def test_report_shows_hostile_text_as_text(html):
    assert "<script" not in html
    assert "<img" not in html
    text = "".join(Elements(html).words)
    for shown in (f"ask {EVIL}", f"tag {EVIL}", f'"broken": "{EVIL}', f"1 {EVIL}"):
        assert shown in text
    assert "\ufffd\ufffd" in text  # a payload that is no UTF-8


def test_report_has_the_numbers_of_funnel_ledger_and_pools(html):
    text = re.sub(r"\s+", " ", " ".join(Elements(html).words))
    for shown in (
        "rows read 12,345 samples 12,000 tagged samples 11,999 selected 4,321",
        "raw 9,730 frequency 1,234 rule 1,007",
        "raw 21,602, frequency 5,678, rule 5,678.",
        "ingest row 12,345 12,000 0 345 bad_json –",
        "select sample 12,000 4,321 0 7,679 not_selected –",
        "p 2 2 1 7 0.250 1.50",
        "1 × bad_json",
        "1 × duplicate",
    ):
        assert shown in text
    assert html.count("<svg") == 2


def test_funnel_of_tags_is_of_the_newest_version_that_was_not_cut_off(lake):
    put_figures(lake)
    recorded(lake, None, "normalize", "r1", count_step("tag", 1, 1, {}))
    assert funnels(lake)[1] == [("raw", 9_730), ("frequency", 1_234), ("rule", 1_007)]


def test_report_again_is_known_until_the_file_is_gone(run_report, tmp_path):
    path = tmp_path / "named.html"
    run_report(str(path), "r1")
    again = run_report(str(path), "r2")
    assert (again.input, again.known, again.kept) == (1, 1, 0)
    path.unlink()
    third = run_report(str(path), "r3")
    assert (third.input, third.known, third.kept) == (1, 0, 1)
    assert "from_earlier_run" not in third.metrics
    assert path.exists()


def test_report_below_a_plain_file_names_the_setting(run_report, full_lake, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"report.path=.*: cannot be written"):
        run_report(str(tmp_path / "file" / "report.html"), "refused")
    assert rows_of(full_lake, "runs", run_id="refused")[0]["status"] == "failed"


def test_report_of_a_version_that_is_not_analysed_names_the_step(full_lake, engines):
    configs = (ReportConfig(), ExportConfig(path="out"))
    with pytest.raises(RunError, match=r"version v7 .* is not analysed; run the step analyze"):
        recorded(full_lake, engines, "report", "early", report, *configs, "mine", "v7")
