"""The run ledger: it balances, it records what happened, it knows what was done before."""

import hashlib
import json
from datetime import datetime

import pytest

from tagsieve import ledger
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import Lake, rows_table
from tagsieve.ledger import PeakMemory, StepRun, fingerprint, new_run_id, record_step


@pytest.fixture
def runs(lake):
    def read():
        rows = lake.arrow("runs").to_pylist(maps_as_pydicts="strict")
        return {(row["run_id"], row["step"]): row for row in rows}

    return read


def test_check_with_every_row_accounted_for_passes(lake):
    run = StepRun(lake, "r1", "ingest", input=10, kept=4, known=3)
    run.rejected["too_long"] += 2
    run.quarantined["not_json"] += 1
    run.check()


@pytest.mark.parametrize("field", ["input", "kept", "known"])
@pytest.mark.parametrize("change", [1, -1])
def test_check_with_a_row_too_many_or_too_few_raises(lake, field, change):
    run = StepRun(lake, "r1", "ingest", input=10, kept=4, known=6)
    setattr(run, field, getattr(run, field) + change)
    with pytest.raises(RunError, match=r"ledger of ingest does not balance.*\(r1\)") as caught:
        run.check()
    for name in ("input", "kept", "known"):
        assert f"{name} {getattr(run, name)} " in str(caught.value)


@pytest.mark.parametrize("counter", ["rejected", "quarantined"])
def test_check_counts_rejected_and_quarantined_rows(lake, counter):
    run = StepRun(lake, "r1", "tag", input=1, kept=1)
    getattr(run, counter)["why"] += 1
    with pytest.raises(RunError, match=f"{counter} 1"):
        run.check()


@pytest.mark.parametrize("counter", ["rejected", "quarantined"])
def test_check_refuses_negative_counts(lake, counter):
    run = StepRun(lake, "r1", "select", input=10, kept=13)
    getattr(run, counter)["why"] -= 3
    with pytest.raises(RunError, match=rf"ledger of select .*: {counter} why -3\..*\(r1\)"):
        run.check()
    run = StepRun(lake, "r1", "select", input=10, kept=13, known=-3)
    with pytest.raises(RunError, match=r": known -3\."):
        run.check()


def test_record_step_while_it_runs_is_running_then_done(lake, runs):
    with record_step(lake, "r1", "ingest", '{"lake": "x"}') as run:
        assert runs()["r1", "ingest"]["status"] == "running"
        assert runs()["r1", "ingest"]["ended"] is None
        run.unit = "sample"
        run.input, run.kept = 5, 2
        run.rejected.update({"a": 1, "b": 2})
        run.read, run.written = {"samples": 3}, {"samples": 4}
        run.metrics["commits"] = 2.0
    row = runs()["r1", "ingest"]
    assert row["status"] == "done"
    assert (row["unit"], row["input"], row["kept"], row["known"]) == ("sample", 5, 2, 0)
    assert row["rejected"] == {"a": 1, "b": 2}
    assert row["quarantined"] == {}
    assert row["read"] == {"samples": 3}
    assert row["written"] == {"samples": 4}
    assert row["error"] is None
    assert json.loads(row["recipe"]) == {"lake": "x"}
    assert row["started"] <= row["ended"]
    assert row["started"].tzinfo is not None
    assert row["metrics"]["commits"] == 2.0
    assert 0 <= row["metrics"]["seconds"] < 60
    assert 10 < row["metrics"]["peak_memory_mb"] < 1e6


@pytest.mark.parametrize(
    ("failure", "recorded"),
    [
        (UsageError("set x to 1"), "set x to 1"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
    ],
)
def test_record_step_that_raises_is_failed_with_its_error(lake, runs, failure, recorded):
    def fail(run):
        run.input = 3
        raise failure

    with pytest.raises(type(failure)), record_step(lake, "r1", "tag", "{}") as run:
        fail(run)
    row = runs()["r1", "tag"]
    assert row["status"] == "failed"
    assert row["error"] == recorded
    assert row["input"] == 3
    assert row["metrics"]["peak_memory_mb"] > 0
    assert "seconds" in row["metrics"]


def test_record_step_whose_row_cannot_be_closed_raises_its_own_error(lake, monkeypatch):
    def refuse(*_):
        raise RunError("runs cannot be written to")

    def fail():
        monkeypatch.setattr(Lake, "upsert", refuse)
        raise UsageError("set x to 1")

    with pytest.raises(UsageError, match="set x to 1") as caught, record_step(lake, "r", "s", "{}"):
        fail()
    assert caught.value.__notes__ == ["then, too: RunError: runs cannot be written to"]


def test_record_step_whose_row_cannot_be_closed_as_done_raises(lake, monkeypatch):
    def refuse(*_):
        raise RunError("runs cannot be written to")

    with pytest.raises(RunError, match="runs cannot be written to"):
        with record_step(lake, "r", "s", "{}"):
            monkeypatch.setattr(Lake, "upsert", refuse)


def test_record_step_left_unbalanced_is_failed(lake, runs):
    with pytest.raises(RunError, match="does not balance"):
        with record_step(lake, "r1", "tag", "{}") as run:
            run.input = 1
    assert runs()["r1", "tag"]["status"] == "failed"
    assert "does not balance" in runs()["r1", "tag"]["error"]


def test_record_step_of_several_steps_and_runs_keeps_one_row_each(lake, runs):
    for run_id, step in (("r1", "ingest"), ("r1", "tag"), ("r2", "ingest")):
        with record_step(lake, run_id, step, "{}"):
            pass
    assert sorted(runs()) == [("r1", "ingest"), ("r1", "tag"), ("r2", "ingest")]


def finish(lake, run_id, identity, count=7, step="ingest"):
    with record_step(lake, run_id, step, "{}") as run:
        run.reads("samples")
        assert not run.done_before(identity)
        run.input = run.kept = count


def asks(lake, identity, step="ingest"):
    run = StepRun(lake, "asking", step)
    run.reads("samples")
    return run, run.done_before(identity)


def test_done_before_same_identity_and_versions_knows_all_of_the_input(lake):
    finish(lake, "r1", {"a": 1})
    run, done = asks(lake, {"a": 1})
    assert done
    assert (run.input, run.known, run.kept) == (7, 7, 0)
    assert run.read == {"samples": -1}
    run.check()


def test_done_before_another_identity_step_or_version_is_new(lake):
    finish(lake, "r1", {"a": 1})
    assert not asks(lake, {"a": 2})[1]
    assert not asks(lake, {"a": 1}, step="tag")[1]
    lake.create("samples")
    run, done = asks(lake, {"a": 1})
    assert not done
    assert run.read == {"samples": 0}
    assert run.input == 0


def test_done_before_a_failed_run_does_not_count(lake):
    def fail(run):
        run.reads("samples")
        run.done_before("x")
        raise RunError("full disk")

    with pytest.raises(RunError), record_step(lake, "r1", "ingest", "{}") as run:
        fail(run)
    assert not asks(lake, "x")[1]


def test_wrote_notes_the_version_after_the_commit(lake):
    run = StepRun(lake, "r1", "ingest")
    run.wrote("samples")
    assert run.written == {}
    lake.create("samples")
    run.wrote("samples", "rejects")
    assert run.written == {"samples": 0}


def test_fingerprint_of_equal_values_is_equal_and_stable():
    assert fingerprint({"b": 1, "a": "é"}, None) == fingerprint({"a": "é", "b": 1}, None)
    assert fingerprint((1, 2)) == fingerprint([1, 2])
    # printf '["x",1]' | sha256sum
    assert fingerprint("x", 1) == "59402b0471b497c0"
    assert fingerprint("x", 1) != fingerprint("x1")
    assert fingerprint("x", 1) != fingerprint("x", 1.5)


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, datetime(2026, 1, 1), b"x", {"deep": [lambda: 0]}]
)
def test_fingerprint_of_a_value_without_json_form_is_refused(value):
    with pytest.raises(TypeError):
        fingerprint("step", value)


def test_new_run_ids_sort_by_time(monkeypatch):
    class Clock(datetime):
        second_of_run = iter([1, 9, 10, 59])

        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 24, 3, 44, next(cls.second_of_run), tzinfo=tz)

    monkeypatch.setattr(ledger, "datetime", Clock)
    ids = [new_run_id() for _ in range(4)]
    assert ids == sorted(ids)
    assert ids[0].startswith("20261124T034401-")
    monkeypatch.undo()
    assert len({new_run_id() for _ in range(50)}) > 45


def test_peak_memory_sees_what_was_allocated():
    with PeakMemory(seconds=0.005) as before:
        pass
    with PeakMemory(seconds=0.005) as memory:
        held = b"\x01" * (200 * 2**20)
        hashlib.sha256(held)  # takes many samples' time
        del held
    assert memory.stop() > before.stop() + 100 * 2**20


def test_rows_table_fills_missing_columns_with_null():
    table = rows_table("quarantine", [{"run_id": "r", "step": "tag", "key": "k", "reason": "x"}])
    assert table.to_pylist()[0]["payload"] is None
    assert table.schema.names[:3] == ["run_id", "step", "key"]
