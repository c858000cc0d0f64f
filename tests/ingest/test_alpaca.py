"""Stanford Alpaca, whole: every one of its 52,002 rows is accounted for."""

import gzip
import json

import pytest

from tagsieve.ingest import Input
from tagsieve.records import sample_id


@pytest.mark.slow
def test_ingest_alpaca_accounts_for_every_row(shared_data, lake, run_ingest):
    path = shared_data / "pools" / "alpaca.jsonl.gz"
    expected, seen = {}, set()
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            query = row["instruction"]
            if row["input"].strip():
                query += "\n" + row["input"]
            identity = sample_id([("user", query), ("assistant", row["output"])])
            if not row["output"].strip():
                expected[number] = "empty_response"
            elif identity in seen:
                expected[number] = "duplicate"
            seen.add(identity)
    assert list(expected.values()).count("empty_response") == 28

    ingested = run_ingest(lake, [Input(pool="alpaca", path=str(path))])
    assert ingested.run.input == 52_002
    assert ingested.run.kept == 52_002 - len(expected)
    assert ingested.run.rejected["empty_response"] == 28
    assert ingested.reasons() == expected
    assert lake.arrow("samples", ["pool"]).num_rows == ingested.run.kept
