"""The main job on the sample pool, end to end: tables, ledger, outputs, and running it again."""

import gzip
import json

import pytest

from tagsieve.lake import Lake

# Facts of the sample pool, from its README: reason -> rows.
BROKEN = {
    "empty_response": 3,
    "wrong_type": 3,
    "no_human_turn": 3,
    "unknown_role": 1,
    "invalid_utf8": 1,
    "unparsable": 1,
    "not_an_object": 1,
    "no_response": 1,
    "missing_role": 1,
    "unknown_format": 1,
}


def steps(folder):
    rows = Lake(f"{folder}/lake").arrow("runs").to_pylist(maps_as_pydicts="strict")
    return sorted(rows, key=lambda row: row["started"])


def selected(folder):
    rows = Lake(f"{folder}/lake").arrow("selections").to_pylist()
    return [(row["pool"], row["sample_id"]) for row in sorted(rows, key=lambda r: r["rank"])]


def test_run_accounts_for_every_row_of_the_sample_pool(demo):
    ingest = steps(demo)[0]
    assert ingest["rejected"] == BROKEN | {"duplicate": 8}
    assert (ingest["input"], ingest["kept"]) == (402, 378)
    rejects = Lake(f"{demo}/lake").arrow("rejects").to_pylist()
    assert len([row for row in rejects if row["step"] == "ingest"]) == 24
    tag = steps(demo)[1]
    assert (tag["input"], tag["kept"], tag["quarantined"]) == (431, 429, {"unreadable": 2})
    for step in steps(demo):
        lost = sum(step["rejected"].values()) + sum(step["quarantined"].values())
        assert step["status"] == "done"
        assert step["input"] == step["kept"] + step["known"] + lost
        assert step["metrics"]["seconds"] > 0


def test_run_writes_each_table_with_unique_keys_that_are_never_null(demo):
    from tagsieve.lake import TABLES

    lake = Lake(f"{demo}/lake")
    written = [name for name in lake.tables() if lake.arrow(name).num_rows]
    assert {"samples", "raw_tags", "ontology", "tags", "selections", "runs"} <= set(written)
    for name in written:
        key = list(TABLES[name].key)
        rows = lake.arrow(name, key)
        assert all(rows[column].null_count == 0 for column in key), name
        assert rows.group_by(key).aggregate([]).num_rows == rows.num_rows, name


def test_run_exports_the_selection_in_its_order(demo):
    lines = (demo / "out/sharegpt/00000.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["pool"], row["id"]) for row in rows] == selected(demo)
    assert len(rows) == 100
    info = json.loads((demo / "out/dataset_info.json").read_text())
    for entry in info.values():
        assert any((demo / "out" / entry["file_name"]).iterdir())


def test_run_reports_in_one_file_without_references(demo):
    html = (demo / "out/report.html").read_text("utf-8")
    assert "402" in html
    assert "invalid_utf8" in html
    assert 'src="http' not in html


def test_run_twice_does_nothing_twice(demo, run_demo):
    lake = Lake(f"{demo}/lake")
    before = {name: lake.version(name) for name in lake.tables() if name != "runs"}
    earlier = len(steps(demo))
    run_demo(demo)
    again = steps(demo)[earlier:]
    assert [row["step"] for row in again] == [row["step"] for row in steps(demo)[:earlier]]
    assert all(row["known"] == row["input"] and row["kept"] == 0 for row in again)
    assert {name: lake.version(name) for name in before} == before


@pytest.mark.slow
@pytest.mark.soak
def test_run_with_8_partitions_gives_the_same_ids(demo, run_demo, tmp_path, spark):
    spark.conf.set("spark.sql.shuffle.partitions", "8")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "20000")
    try:
        other = run_demo(tmp_path)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
    assert selected(other) == selected(demo)
    for name, key in (("samples", "sample_id"), ("raw_tags", "query_id"), ("tags", "sample_id")):
        ours, theirs = (
            sorted(
                (row for row in Lake(f"{folder}/lake").arrow(name).drop(["run_id"]).to_pylist())
                if name != "tags"
                else Lake(f"{folder}/lake").arrow(name).to_pylist(),
                key=lambda row: (row.get("pool", ""), row[key]),
            )
            for folder in (demo, other)
        )
        assert ours == theirs, name


@pytest.mark.slow
def test_run_on_a_grown_file_tags_only_the_new_queries(run_demo, tmp_path):
    source = tmp_path / "qa.jsonl.gz"
    rows = [
        {"question": f"Write a poem about {what}.", "answer": f"Oh {what}!"}
        for what in ("the moon", "the sea")
    ]
    pool = f"inputs=[{{path: {source}, pool: qa}}]"
    small = ("normalize.min_count=1", "select.size=2", pool)

    def write(count):
        lines = [json.dumps(row) + "\n" for row in rows[:count]]
        source.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))

    write(1)
    run_demo(tmp_path, *small)
    write(2)
    run_demo(tmp_path, *small)
    ingest, tag = (
        [row for row in steps(tmp_path) if row["step"] == step][-1] for step in ("ingest", "tag")
    )
    assert (ingest["kept"], ingest["known"]) == (1, 1)
    assert (tag["kept"], tag["known"], tag["metrics"]["model_calls"]) == (1, 1, 1)
