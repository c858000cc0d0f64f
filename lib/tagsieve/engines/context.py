"""What every step is handed: the lake, the engines, its line of the ledger, the console."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tagsieve.console import Console
from tagsieve.engines.config import RayConfig, SparkConfig
from tagsieve.lake import Lake
from tagsieve.ledger import StepRun

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass
class Engines:
    """Spark and Ray, each started when a step first asks for it and kept for the whole run."""

    spark_config: SparkConfig = field(default_factory=SparkConfig)
    ray_config: RayConfig = field(default_factory=RayConfig)
    verbose: bool = False
    _spark: SparkSession | None = None
    _ray: bool = False

    @property
    def spark(self) -> SparkSession:
        """The Spark session."""
        if self._spark is None:
            from tagsieve.engines.spark import start_spark

            self._spark = start_spark(self.spark_config, self.verbose)
        return self._spark

    def ray(self) -> None:
        """Make sure that Ray is there."""
        if not self._ray:
            from tagsieve.engines.ray import start_ray

            start_ray(self.ray_config, self.verbose)
            self._ray = True

    def close(self) -> None:
        """Stop what was started here."""
        if self._ray:
            from tagsieve.engines.ray import stop_ray

            stop_ray()
            self._ray = False
        if self._spark is not None:
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
