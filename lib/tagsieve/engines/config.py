"""Where the engines run. Nothing here changes what a run computes."""

from __future__ import annotations

from pydantic import Field

from tagsieve.config import RecipeModel


class SparkConfig(RecipeModel):
    """Spark: embedded by default, any master by its address."""

    master: str = Field(
        "local[*]",
        description="Spark master; a master given to spark-submit wins over this one.",
    )
    driver_memory: str = Field("4g", description="Heap of the driver (of all of Spark if local).")
    shuffle_partitions: int | None = Field(
        None, ge=1, description="Default: twice the cores when local, else Spark's own default."
    )
    java_options: str = Field("", description="Extra options of the driver's JVM.")
    conf: dict[str, str] = Field({}, description="Any other Spark setting.")


class RayConfig(RecipeModel):
    """Ray: embedded by default, any cluster by its address."""

    address: str | None = Field(
        None,
        description="Address of a running cluster (`auto`, `host:6379`, `ray://...`); "
        "default: the cluster that RAY_ADDRESS names, else an embedded one.",
    )
    cpus: int | None = Field(None, ge=1, description="Cores of the embedded Ray; default: all.")
    object_store_gb: float = Field(0.5, gt=0.08, description="Shared memory of the embedded Ray.")


class CommitConfig(RecipeModel):
    """When a model's rows are committed, and how often an engine may die."""

    commit_seconds: float = Field(
        60.0, gt=0, description="Longest time between commits: the most work a killed run repeats."
    )
    commit_rows: int | None = Field(
        None,
        ge=4,
        description="Most rows of a replica that are under way and not committed: what a killed "
        "run does again. Default: by time and size alone.",
    )
    restarts: int = Field(
        3, ge=0, description="An engine that dies is started again so often in a row."
    )
