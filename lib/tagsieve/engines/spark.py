"""One Spark session with Delta, for a whole run."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from tagsieve.engines.config import SparkConfig
from tagsieve.engines.java import cache_folder, find_java
from tagsieve.errors import RunError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DELTA_PACKAGE = "io.delta:delta-spark_4.1_2.13:4.3.1"
_DELTA_JARS = (
    "io.delta_delta-spark_4.1_2.13",
    "io.delta_delta-storage",
    "io.delta_delta-kernel-api",
    "io.delta_delta-kernel-defaults",
    "io.delta_delta-kernel-unitycatalog",
    "io.unitycatalog_unitycatalog-client",
    "io.unitycatalog_unitycatalog-hadoop",
)


CODE_CACHE = "-XX:ReservedCodeCacheSize=256m"
"""A JVM that compiles little (-XX:TieredStopAtLevel=1) reserves 48 MB, which the plans of a whole
run fill; what fails then is any method handle, far from the cause."""


def delta_jars() -> list[Path]:
    """Delta's jars in the cache (what Spark itself brings is left out); empty if not fetched."""
    folder = cache_folder() / "ivy" / "jars"
    found = [jar for name in _DELTA_JARS for jar in sorted(folder.glob(f"{name}-*.jar"))[-1:]]
    return found if len(found) == len(_DELTA_JARS) else []


def fetch_delta_jars() -> list[Path]:
    """Have Spark resolve Delta's jars from Maven Central into the cache, once.

    Raises RunError with the end of Spark's own output when that fails.
    """
    jars = delta_jars()
    if jars:
        return jars
    with tempfile.TemporaryDirectory() as folder:
        nothing = Path(folder) / "nothing.py"
        nothing.write_text("")
        command = [
            f"{_spark_home()}/bin/spark-submit",
            *("--packages", DELTA_PACKAGE),
            *("--conf", f"spark.jars.ivy={cache_folder() / 'ivy'}"),
            str(nothing),
        ]
        # PYSPARK_PYTHON may be a Python that only the nodes of a cluster have.
        environment = _environment() | {"PYSPARK_DRIVER_PYTHON": sys.executable}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    jars = delta_jars()
    if done.returncode or not jars:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise RunError(
            f"Delta's jars ({DELTA_PACKAGE}) could not be fetched from Maven Central. With no way "
            f"to it, put them into {cache_folder() / 'ivy' / 'jars'}. Spark said:\n{tail}"
        )
    return jars


def _spark_home() -> str:
    import pyspark

    return os.environ.get("SPARK_HOME") or str(Path(pyspark.__file__).parent)


def _environment() -> dict[str, str]:
    """The environment in which Spark starts: its own Java, and this Python for its workers unless
    PYSPARK_PYTHON names another."""
    java_home, _ = find_java()
    python = os.environ.get("PYSPARK_PYTHON") or sys.executable
    settings = {"SPARK_HOME": _spark_home(), "PYSPARK_PYTHON": python}
    if java_home:
        settings["JAVA_HOME"] = java_home
    return {**os.environ, **settings}


def _start_jvm(settings: dict[str, str], verbose: bool) -> None:
    """Start the JVM of this process; what it says by itself is shown only if `verbose`.

    Raises RunError with the end of what it said when it does not start.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway

    conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
    with tempfile.TemporaryFile() as said:
        try:
            gateway = launch_gateway(  # type: ignore[no-untyped-call]
                conf, None if verbose else {"stdout": said, "stderr": said}
            )
        except PySparkRuntimeError as error:
            said.seek(0)
            tail = said.read().decode("utf-8", "replace").strip().splitlines()[-10:]
            raise RunError("\n".join(["Spark's JVM did not start. It said:", *tail])) from error
    SparkContext._ensure_initialized(gateway=gateway)


def start_spark(config: SparkConfig, verbose: bool = False) -> SparkSession:
    """The session of this process, started on first use.

    Under spark-submit the JVM already runs: its master and jars are used, and only what a session
    may still set is set. Raises RunError when Java or Delta is missing.
    """
    from pyspark import SparkContext
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    submitted = "PYSPARK_GATEWAY_PORT" in os.environ or SparkContext._gateway is not None
    settings = {
        "spark.app.name": "tagsieve",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # What is collected here has many small groups: a hash map of them is given up for sorting
        # after 128 groups, and has cost its time by then.
        "spark.sql.execution.useObjectHashAggregateExec": "false",
        # The first rows of each group are cut before groups are gathered, however many: by default
        # a limit above 1,000 has each group gathered and sorted whole, in one task.
        "spark.sql.optimizer.windowGroupLimitThreshold": str(2**31 - 1),
    }
    local = config.master.startswith("local")
    if local and not submitted:
        cores = os.cpu_count() or 1
        settings |= {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": str(verbose).lower(),
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": str(2 * cores),
            "spark.databricks.delta.snapshotPartitions": "2",
        }
    if not submitted:
        jars = fetch_delta_jars()
        options = config.java_options
        if not verbose:
            quiet = resources.files("tagsieve.engines") / "log4j2-quiet.properties"
            options = f"-Dlog4j2.configurationFile={quiet} {options}".strip()
        settings |= {
            "spark.master": config.master,
            "spark.driver.memory": config.driver_memory,
            # On the class path, not in spark.jars: nothing is copied when local, and Java can
            # share the archived classes.
            "spark.driver.extraClassPath": os.pathsep.join(map(str, jars)),
            "spark.driver.extraJavaOptions": f"{CODE_CACHE} {options}".strip(),
        }
        if not local:
            settings["spark.jars"] = ",".join(map(str, jars))
        os.environ.update(_environment())
    if config.shuffle_partitions:
        settings["spark.sql.shuffle.partitions"] = str(config.shuffle_partitions)
    settings |= config.conf
    try:
        if not submitted:
            _start_jvm(settings, verbose)
        builder = SparkSession.builder
        for key, value in settings.items():
            builder = builder.config(key, value)
        interrupt = signal.getsignal(signal.SIGINT)
        spark = builder.getOrCreate()
        if threading.current_thread() is threading.main_thread():
            # PySpark's own handler calls the JVM in the middle of a call that Ctrl-C cut off, and
            # fails; the JVM and its jobs end with this process anyway.
            signal.signal(signal.SIGINT, interrupt)
        # The loader that spark-submit gave its jars to, which is not the one of Class.forName.
        thread = spark._jvm.java.lang.Thread.currentThread()  # type: ignore[union-attr]
        thread.getContextClassLoader().loadClass("io.delta.tables.DeltaTable")
    except PySparkException as error:
        raise RunError(f"Spark did not start on {config.master}: {error}") from error
    except Exception as error:
        if "ClassNotFoundException" not in str(error):
            raise
        raise RunError(
            f"Spark was started without Delta: add --packages {DELTA_PACKAGE} to spark-submit"
        ) from error
    if not verbose:
        spark.sparkContext.setLogLevel("ERROR")
        # Its errors come as exceptions, too.
        logging.getLogger("py4j").setLevel(logging.CRITICAL)
    return spark
