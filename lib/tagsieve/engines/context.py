"""What every step is handed: the lake, the engines, its line of the ledger, the console."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tagsieve.console import Console
from tagsieve.engines.config import RayConfig, SparkConfig
from tagsieve.lake import Lake
from tagsieve.ledger import StepRun

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass
class Engines:
    """Spark and Ray, each started when a step first asks for it and kept for the whole run.

    `ray_beside_spark`: a later step will need Ray, so start it while Spark starts and works.
    """

    spark_config: SparkConfig = field(default_factory=SparkConfig)
    ray_config: RayConfig = field(default_factory=RayConfig)
    verbose: bool = False
    ray_beside_spark: bool = False
    _spark: SparkSession | None = None
    _ray: Future[None] | None = None
    _starter: ThreadPoolExecutor | None = None

    @property
    def spark(self) -> SparkSession:
        """The Spark session."""
        if self._spark is None:
            from tagsieve.engines.spark import start_spark

            if self.ray_beside_spark:
                self._start_ray()
            self._spark = start_spark(self.spark_config, self.verbose)
        return self._spark

    def ray(self) -> None:
        """Make sure that Ray is there; raises RunError when it did not start."""
        self._start_ray().result()

    def _start_ray(self) -> Future[None]:
        if self._ray is None:
            from tagsieve.engines.ray import start_ray

            self._starter = ThreadPoolExecutor(1, thread_name_prefix="start-ray")
            self._ray = self._starter.submit(start_ray, self.ray_config, self.verbose)
        return self._ray

    def close(self) -> None:
        """Stop what was started here."""
        if self._ray is not None:
            from tagsieve.engines.ray import stop_ray

            if self._ray.exception() is None:
                stop_ray()
            # Not earlier: Ray's processes die with the thread that started them.
            assert self._starter is not None
            self._starter.shutdown()
            self._ray = self._starter = None
        if self._spark is not None:
            from py4j.protocol import Py4JError

            # A call that Ctrl-C cut off leaves no way to the JVM, which ends with this process.
            with suppress(Py4JError):
                self._spark.stop()
            self._spark = None


@dataclass(frozen=True)
class Context:
    """One step's surroundings."""

    lake: Lake
    engines: Engines
    run: StepRun
    console: Console
    limit: int | None = None

    def pinned(self, table: str) -> DataFrame:
        """A table as this step found it; as it is now where the step pins no version of it."""
        return self.lake.read(self.engines.spark, table, self.run.read.get(table))

    @contextmanager
    def part(self) -> Iterator[Context]:
        """The context of a part of the step, with a line of the ledger of its own; what it counts
        is added to the step's, also where it fails."""
        run = StepRun(self.lake, self.run.run_id, self.run.step, read=self.run.read)
        try:
            yield replace(self, run=run)
        finally:
            self.run.add(run)

    def stored(self, name: str, frame: DataFrame, again: bool = True) -> DataFrame:
        """A frame written to the run's work folder, and read from there: computed once.

        `again`: also where a step of this run has stored a frame under this name.
        """
        uri = self.lake.spark_uri(self.lake.work_uri(self.run.run_id, name))
        if again or not self.has_stored(name):
            frame.write.mode("overwrite").parquet(uri)
        return self.engines.spark.read.schema(frame.schema).parquet(uri)

    def has_stored(self, name: str) -> bool:
        """Whether a step of this run has written a whole folder of this name for later ones."""
        import fsspec

        files, folder = fsspec.core.url_to_fs(self.lake.work_uri(self.run.run_id, name))
        return bool(files.exists(f"{folder}/_SUCCESS"))
