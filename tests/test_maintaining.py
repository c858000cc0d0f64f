"""`maintain`: fewer files, no pinned version lost, nobody at work disturbed."""

import json
import os
import re
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.table import TableOptimizer
from pyspark.sql.pandas.types import from_arrow_schema

from handmade import answer, put, sample
from tagsieve import maintaining
from tagsieve.cli import main
from tagsieve.console import Console
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import TABLES, Lake, rows_table
from tagsieve.lease import lease
from tagsieve.maintaining import maintain, pins

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(maintaining, "_SETTLE_SECONDS", 0.05)


def tend(lake, *tables, **options):
    return {did.table: did for did in maintain(lake, tables, Console(quiet=True), **options)}


def append_answers(lake, count, taggers=("a", "b"), first=0):
    """`count` commits of one answer each, alternately of each tagger."""
    for number in range(first, first + count):
        row = answer(f"q{number}", "x", tagger=taggers[number % len(taggers)])
        lake.append_next("raw_tags", rows_table("raw_tags", [row]), "app", number)


def pin(lake, run_id="r", status="done", ended=None, step="tag", started=None, **maps):
    now = datetime.now(UTC)
    row = {"run_id": run_id, "step": step, "status": status, "started": started or now} | maps
    row["ended"] = None if status == "running" else ended or now
    lake.upsert("runs", rows_table("runs", [row]))


def files_of(lake, name):
    """Size of every file of a table, its log too."""
    found = {}
    for folder, _, names in os.walk(lake.uri(name)):
        found |= {f"{folder}/{file}": os.path.getsize(f"{folder}/{file}") for file in names}
    return found


def data_files(lake, name):
    paths = (path for path in files_of(lake, name) if "_delta_log" not in path)
    return {path.rsplit("/", 1)[-1] for path in paths if path.endswith(".parquet")}


def version_of(lake, name, version=None):
    """The rows of a version, through delta-rs."""
    table = DeltaTable(lake.uri(name), version=version).to_pyarrow_table()
    return sorted(json.dumps(row, default=str) for row in table.to_pylist())


def spark_version_of(lake, spark, name, version):
    """The same, through Spark's `versionAsOf`."""
    rows = lake.read(spark, name, version).toArrow().cast(TABLES[name].schema)
    return sorted(json.dumps(row, default=str) for row in rows.to_pylist())


def needed_by(lake, name, *versions):
    at = [DeltaTable(lake.uri(name), version=version) for version in versions]
    return {uri.rsplit("/", 1)[-1] for table in at for uri in table.file_uris()}


def test_maintain_after_many_appends_keeps_what_is_pinned_and_drops_the_rest(lake, spark):
    append_answers(lake, 200)
    pinned = [0, 17, 100, 130]  # there are checkpoints at 99 and 199
    pin(lake, read={"raw_tags": 17}, written={"raw_tags": 130, "samples": -1})
    for number, version in enumerate(pinned):
        pin(lake, f"r{number}", read={"raw_tags": version})
    before = {version: version_of(lake, "raw_tags", version) for version in [*pinned, 200]}
    did = tend(lake, retention_hours=0)["raw_tags"]
    assert (did.files_before, did.files_after, did.pinned, did.removed) == (200, 2, 4, 70)
    assert did.freed > 70 * 1000
    newest = lake.version("raw_tags")
    assert data_files(lake, "raw_tags") == needed_by(lake, "raw_tags", 130, newest)
    assert version_of(lake, "raw_tags") == before[200]
    for version in pinned:
        assert version_of(lake, "raw_tags", version) == before[version], version
        assert spark_version_of(lake, spark, "raw_tags", version) == before[version], version
    assert spark_version_of(lake, spark, "raw_tags", None) == before[200]
    with pytest.raises(FileNotFoundError):
        version_of(lake, "raw_tags", 150)

    # And on: pins before and after the compaction and its checkpoint.
    append_answers(lake, 60, first=200)
    later = newest + 30
    pin(lake, "later", read={"raw_tags": later})
    before |= {v: version_of(lake, "raw_tags", v) for v in (later, newest + 60)}
    assert tend(lake, retention_hours=0)["raw_tags"].removed == 30
    assert version_of(lake, "raw_tags") == before[newest + 60]
    for version in [*pinned, later]:
        assert version_of(lake, "raw_tags", version) == before[version], version
    for version in (17, later):
        assert spark_version_of(lake, spark, "raw_tags", version) == before[version], version


def test_maintain_again_changes_nothing(lake):
    append_answers(lake, 30)
    put(lake, "quarantine", [{"run_id": "r", "step": "tag", "key": "k"}])
    pin(lake, read={"raw_tags": 7})
    tend(lake, retention_hours=0)
    versions = {name: lake.version(name) for name in lake.tables()}
    files = {name: files_of(lake, name) for name in lake.tables()}
    did = tend(lake, retention_hours=0)
    assert {d.removed for d in did.values()} == {0}
    assert {name: lake.version(name) for name in lake.tables()} == versions
    assert {name: files_of(lake, name) for name in lake.tables()} == files


def test_maintain_within_the_retention_removes_nothing(lake):
    append_answers(lake, 20)
    before = data_files(lake, "raw_tags")
    did = tend(lake, retention_hours=1)["raw_tags"]
    assert (did.files_after, did.removed) == (2, 0)
    assert before < data_files(lake, "raw_tags")
    assert len(version_of(lake, "raw_tags", 5)) == 5


def test_maintain_keeps_what_left_within_the_retention_though_its_file_is_old(lake):
    append_answers(lake, 20)
    two_hours_ago = time.time() - 7200
    for path in files_of(lake, "raw_tags"):
        os.utime(path, (two_hours_ago, two_hours_ago))
    orphan = f"{lake.uri('raw_tags')}/tagger=a/part-of-a-killed-writer.parquet"
    with open(orphan, "wb") as stream:
        stream.write(b"cut off")
    young = orphan.replace("killed", "living")
    with open(young, "wb") as stream:
        stream.write(b"still written to")
    os.utime(orphan, (two_hours_ago, two_hours_ago))
    assert tend(lake, retention_hours=1)["raw_tags"].removed == 1
    assert len(version_of(lake, "raw_tags", 20)) == 20
    assert not os.path.exists(orphan)
    assert os.path.exists(young)


def test_maintain_keeps_application_transactions(lake):
    append_answers(lake, 20)
    row = rows_table("quarantine", [{"run_id": "r", "step": "tag", "key": "k"}])
    for number in range(12):
        lake.append_next("quarantine", row, "app", number)
    once = rows_table("raw_tags", [answer("once")])
    assert lake.append_once("raw_tags", once, "once", 4)
    tend(lake, retention_hours=0)
    assert os.path.exists(f"{lake.uri('quarantine')}/_delta_log/_last_checkpoint")
    again = Lake(lake.root)
    assert not again.append_once("raw_tags", once, "once", 4)
    assert again.commits_of("raw_tags", "app") == 20
    assert again.append_next("quarantine", row, "app", 12) == 13
    with pytest.raises(RunError, match="another run committed"):
        again.append_next("raw_tags", once, "app", 19)


def test_unpin_days_releases_old_runs_but_not_what_made_an_ontology(lake):
    append_answers(lake, 30)
    ended = datetime.now(UTC) - timedelta(days=10)
    pin(lake, "old", ended=ended, read={"raw_tags": 20})
    pin(lake, "ontology", ended=ended, read={"raw_tags": 5})
    pin(lake, "new", read={"raw_tags": 10})
    pin(lake, "failed", "failed", read={"raw_tags": 25})
    made = {"version": "v1", "tagger": "a", "read_versions": {"raw_tags": 5, "samples": -1}}
    put(lake, "ontology_versions", [made])
    assert pins(lake)["raw_tags"] == {5, 10, 20}
    assert pins(lake, 11)["raw_tags"] == {5, 10, 20}
    assert pins(lake, 9)["raw_tags"] == {5, 10}
    assert "samples" not in pins(lake)
    tend(lake, "raw_tags", retention_hours=0, unpin_days=9)
    newest = lake.version("raw_tags")
    assert data_files(lake, "raw_tags") == needed_by(lake, "raw_tags", 10, newest)


def test_file_released_after_its_tombstone_is_forgotten_is_removed(lake):
    append_answers(lake, 20)
    pin(lake, read={"raw_tags": 20})
    table = lake.delta("raw_tags")
    table.alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    assert tend(lake, "raw_tags", retention_hours=0)["raw_tags"].removed == 0
    time.sleep(0.01)
    lake.delta("raw_tags").create_checkpoint()
    assert tend(lake, "raw_tags", retention_hours=0)["raw_tags"].removed == 0
    assert tend(lake, "raw_tags", retention_hours=0, unpin_days=0)["raw_tags"].removed == 20
    assert len(version_of(lake, "raw_tags")) == 20


def test_dry_run_changes_nothing_and_tells_what_would_be_done(lake):
    append_answers(lake, 20)
    pin(lake, read={"raw_tags": 7})
    lake.delta("raw_tags").optimize.compact()
    append_answers(lake, 20, first=20)
    files = {name: files_of(lake, name) for name in lake.tables()}
    did = tend(lake, retention_hours=0, dry_run=True)["raw_tags"]
    assert {name: files_of(lake, name) for name in lake.tables()} == files
    assert not os.path.exists(f"{lake.root}/_leases")
    assert (did.files_before, did.files_after, did.removed) == (22, 2, 13)
    assert did.freed > 13_000
    assert tend(lake, retention_hours=0)["raw_tags"].files_after == 2


def test_spark_written_tables_with_odd_names_keep_every_row(lake, spark):
    # delta-rs 1.6.6 doubles the rows of "ünï" on compaction.
    pools = ["my pool", "50% 'a'/b", "ünï"]
    schema = from_arrow_schema(TABLES["samples"].schema)

    def frame(first, *pools):
        rows = [sample(p, f"s{first + n}") | {"meta": None} for p in pools for n in range(9)]
        return spark.createDataFrame(rows_table("samples", rows).to_pandas(), schema)

    lake.append(frame(0, *pools), "samples")
    for pool in pools:
        lake.replace(frame(100, pool).repartition(9), "samples", {"pool": pool})
    pin(lake, read={"samples": 1}, step="select")
    before = {version: version_of(lake, "samples", version) for version in (1, 4)}
    assert [len(rows) for rows in before.values()] == [27, 27]
    did = tend(lake, retention_hours=0)["samples"]
    assert did.files_before - did.files_after == 2 * (did.files_before // 3 - 1)
    newest = lake.version("samples")
    assert data_files(lake, "samples") == needed_by(lake, "samples", 1, newest)
    for version, expected in ((1, before[1]), (newest, before[4])):
        assert version_of(lake, "samples", version) == expected
        assert spark_version_of(lake, spark, "samples", version) == expected
    with pytest.raises(RunError, match=r"samples has 36 rows in version \d+.*and 27 before"):
        lake.compact("samples", {"pool": "ünï"}, maintaining.TARGET_BYTES)


def test_maintain_while_a_tag_run_appends_disturbs_nobody(lake):
    append_answers(lake, 60)
    recipe = json.dumps({"tag": {"kind": "vllm"}})
    started = datetime.now(UTC) - 30 * HOUR
    pin(lake, "busy", "running", recipe=recipe, started=started)
    failures, appended, stop = [], [], threading.Event()

    def work():
        try:
            while not stop.is_set():
                append_answers(Lake(lake.root), 1, first=60 + len(appended))
                pin(Lake(lake.root), "other", read={"samples": len(appended)})
                appended.append(1)
        except Exception as error:
            failures.append(error)

    with lease(lake, "tag-a", "busy"):
        thread = threading.Thread(target=work)
        thread.start()
        try:
            for _ in range(3):
                tend(lake, "raw_tags", "runs", retention_hours=1)
                time.sleep(0.5)
        finally:
            stop.set()
            thread.join()
    assert not failures
    assert len(version_of(lake, "raw_tags")) == 60 + len(appended) > 62
    assert lake.commits_of("raw_tags", "app") == 60 + len(appended)


@pytest.mark.parametrize(
    ("step", "left"),
    [("tag", {"samples"}), ("replay", {"samples"}), ("ingest", {"samples", "raw_tags"})],
)
def test_tables_that_a_run_at_work_merges_into_are_left(lake, capsys, step, left):
    append_answers(lake, 20)
    put(lake, "samples", [sample("p", "s")])
    pin(lake, "busy", "running", step=step)
    did = maintain(lake, (), Console(), 1)
    assert {"runs", "raw_tags", "samples"} - {d.table for d in did} == left
    told = capsys.readouterr().out
    assert all(f"{name}: left as it is, run busy (step {step}" in told for name in left)


def test_vacuum_reaches_no_further_than_the_start_of_a_run_at_work(lake):
    append_answers(lake, 20)
    lake.delta("raw_tags").optimize.compact()
    # As if the compaction, and all before it, had been three hours ago.
    then = time.time() - 3 * 3600
    log = f"{lake.uri('raw_tags')}/_delta_log/00000000000000000021.json"
    with open(log, encoding="utf-8") as stream:
        text = stream.read()
    with open(log, "w", encoding="utf-8") as stream:
        stream.write(re.sub(r'"deletionTimestamp":\d+', f'"deletionTimestamp":{then:.0f}000', text))
    for path in files_of(lake, "raw_tags"):
        os.utime(path, (then, then))
    recipe = json.dumps({"tag": {"kind": "vllm"}})
    pin(lake, "busy", "running", recipe=recipe, started=datetime.now(UTC) - 5 * HOUR)
    assert tend(lake, "raw_tags", retention_hours=1)["raw_tags"].removed == 0
    pin(lake, "busy", "failed")
    assert tend(lake, "raw_tags", retention_hours=1)["raw_tags"].removed == 20


def test_retention_below_an_hour_is_refused_while_a_run_is_at_work(lake):
    append_answers(lake, 10)
    long_ago = datetime.now(UTC) - 100 * HOUR
    pin(lake, "busy", "running", started=long_ago)
    tend(lake, retention_hours=0)  # no lease, and too old to be believed
    with (
        lease(lake, "tag-a", "busy"),
        pytest.raises(UsageError, match=r"retention-hours=0 could remove.*run busy \(step tag"),
    ):
        tend(lake, retention_hours=0)
    pin(lake, "busy", "running", step="ingest")
    with pytest.raises(UsageError, match="run busy"):
        tend(lake, retention_hours=0)
    # Its lease is that of a process that is gone.
    os.makedirs(f"{lake.root}/_leases", exist_ok=True)
    dead = {"run_id": "busy", "machine": "elsewhere", "process": 1, "since": 0, "renewed": 0}
    with open(f"{lake.root}/_leases/tag-a.json", "w", encoding="utf-8") as stream:
        json.dump(dead, stream)
    tend(lake, retention_hours=0)


def test_maintain_beside_another_is_refused(lake):
    append_answers(lake, 10)
    with lease(lake, "maintain", "other"), pytest.raises(RunError, match="run other"):
        tend(lake)
    assert tend(lake)["raw_tags"].files_before == 10


def test_compaction_that_loses_a_race_is_tried_again_then_reported(lake, monkeypatch):
    append_answers(lake, 20)
    put(lake, "samples", [sample("p", "s")])
    compact, calls = TableOptimizer.compact, []
    monkeypatch.setattr("tagsieve.lake.PATIENCE", 0)

    def lose(times):
        def losing(self, *args, **options):
            calls.append(1)
            if len(calls) <= times:
                raise CommitFailedError("a concurrent transaction deleted data")
            return compact(self, *args, **options)

        monkeypatch.setattr(TableOptimizer, "compact", losing)

    lose(1)
    assert tend(lake)["raw_tags"].files_after == 2
    append_answers(lake, 20, first=20)
    lose(99)
    with pytest.raises(RunError, match=r"not maintained, see above: raw_tags$"):
        tend(lake)
    with pytest.raises(RunError, match="raw_tags cannot be compacted while others change it"):
        lake.compact("raw_tags", {"tagger": "a"}, maintaining.TARGET_BYTES)


def test_log_of_an_older_table_is_kept_from_now_on(lake):
    lake.create("samples").alter.set_table_properties({"delta.enableExpiredLogCleanup": "true"})
    tend(lake)
    configuration = lake.delta("samples").metadata().configuration
    assert configuration["delta.enableExpiredLogCleanup"] == "false"
    assert tend(lake)["samples"].files_before == 0
    assert lake.version("samples") == 2


def test_maintain_command_prints_a_line_per_table(lake):
    append_answers(lake, 20)
    pin(lake, read={"raw_tags": 7})
    done = CliRunner().invoke(main, ["maintain", "--lake", lake.root, "raw_tags"])
    assert done.exit_code == 0, done.output
    assert re.search(r"raw_tags\W+20\W+2\W+[\d.]+ KB\W+1\W+0\W+0 B", done.output)
    assert "runs" not in done.output.splitlines()[-2]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("raw_tag", r"there is no table 'raw_tag'; did you mean raw_tags\?"),
        ("samples", r"has no table samples yet; it has raw_tags"),
    ],
)
def test_maintain_of_an_unknown_table_exits_2(lake, table, message):
    append_answers(lake, 1)
    done = CliRunner().invoke(main, ["maintain", "--lake", lake.root, table])
    assert done.exit_code == 2
    assert re.search(message, done.stderr)
