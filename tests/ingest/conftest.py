"""One ingest run into a lake, with what it wrote by pool; runs are shared within a test file."""

import gzip
import json
from dataclasses import dataclass

import pytest

from tagsieve.console import Console
from tagsieve.engines.context import Context
from tagsieve.ingest import IngestConfig, ingest
from tagsieve.lake import Lake
from tagsieve.ledger import StepRun, record_step


@dataclass
class Ingested:
    """What one run left behind."""

    lake: Lake
    run: StepRun

    def rows(self, table, pool=None):
        """Rows of a table, all or of one pool, in the order of their source."""
        rows = self.lake.arrow(table).to_pylist(maps_as_pydicts="strict")
        found = [row for row in rows if pool in (None, row["pool"])]
        return sorted(found, key=lambda row: (row["pool"], row["source"], row["source_row"]))

    def samples(self, pool=None):
        return self.rows("samples", pool)

    def rejects(self, pool=None):
        return self.rows("rejects", pool)

    def said(self, pool):
        """Each sample's texts, from the first turn to the last."""
        return [[turn["content"] for turn in row["turns"]] for row in self.samples(pool)]

    def reasons(self, pool=None):
        """Reason by row number."""
        return {row["source_row"]: row["reason"] for row in self.rejects(pool)}


@pytest.fixture(scope="session")
def run_ingest(engines):
    """Ingest `inputs` into `lake` as a recorded step; its ledger must balance."""

    def run(lake, inputs, config=None, limit=None, run_id="run1"):
        with record_step(lake, run_id, "ingest", "{}") as step:
            context = Context(lake, engines, step, Console(quiet=True), limit)
            ingest(context, inputs, config or IngestConfig())
        accounted = step.kept + step.known + step.rejected.total()
        assert step.input == accounted
        return Ingested(lake, step)

    return run


@pytest.fixture(scope="session")
def write():
    """Write text, bytes or a list of records (as JSON lines) to a file, gzipped by its name."""

    def write_file(path, content):
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        data = content.encode() if isinstance(content, str) else content
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return str(path)

    return write_file
