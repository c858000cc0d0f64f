"""One Spark and one Ray for all tests, each started on first use; a fresh lake per test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

# Hypothesis, Ray and Hugging Face must not reach for a network in tests.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tagsieve.console import Console
from tagsieve.engines.config import RayConfig, SparkConfig
from tagsieve.engines.context import Context, Engines
from tagsieve.lake import Lake
from tagsieve.ledger import StepRun

pytest_plugins = ["own_bank", "ray_cluster", "stub_endpoint", "tiny_llama"]


class ByFile(LoadFileScheduling):
    """A file is run by one process, and so are all that share the demo."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/jobs" if file.startswith("tests/jobs/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """How the processes share the tests."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that the processes end together."""
    slow = {item.path for item in items
            if item.get_closest_marker("slow") and not item.get_closest_marker("soak")}  # fmt: skip
    items.sort(key=lambda item: (item.path.parent.name != "jobs", item.path not in slow))


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """Spark and Ray of the whole test run."""
    quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    interpreted = {
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        # Plans of tests are small; jobs that run as programs have it on.
        "spark.sql.adaptive.enabled": "false",
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    spark = SparkConfig(
        driver_memory="2g", shuffle_partitions=2, java_options=quick, conf=interpreted
    )
    started = Engines(spark, RayConfig(object_store_gb=0.2))
    yield started
    started.close()


@pytest.fixture(scope="session")
def spark(engines: Engines):
    return engines.spark


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def make_context(lake: Lake, engines: Engines) -> Callable[..., Context]:
    """A context for one step, with a new line of the ledger each time."""
    count = 0

    def make(step: str, limit: int | None = None) -> Context:
        nonlocal count
        count += 1
        run = StepRun(lake, f"run{count}", step)
        return Context(lake, engines, run, Console(quiet=True), limit)

    return make


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.exists():
        pytest.skip("the shared data folder beside the checkout is not there")
    return SHARED_DATA
