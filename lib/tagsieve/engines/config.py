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
