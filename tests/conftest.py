"""One Spark and one Ray for all tests, each started on first use; a fresh lake per test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Hypothesis, Ray and Hugging Face must not reach for a network in tests.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tagsieve.console import Console
from tagsieve.engines.config import RayConfig, SparkConfig
from tagsieve.engines.context import Context, Engines
from tagsieve.lake import Lake
from tagsieve.ledger import StepRun

pytest_plugins = ["own_bank", "ray_cluster", "stub_endpoint", "tiny_llama"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A group for each file, and one for all that share the demo; slow ones first, so that the two
    that run at a time end together."""
    slow = set()
    for item in items:
        folder = item.path.parent.name
        group = folder if folder == "jobs" else f"{folder}/{item.path.name}"
        item.add_marker(pytest.mark.xdist_group(group))
        if item.get_closest_marker("slow") and not item.get_closest_marker("soak"):
            slow.add(group)
    order = {"jobs": 0} | dict.fromkeys(slow, 1)
    items.sort(key=lambda item: order.get(item.get_closest_marker("xdist_group").args[0], 2))


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def engines() -> Iterator[Engines]:
    """Spark and Ray of the whole test run."""
    quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    interpreted = {
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
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
