"""Jobs as programs of their own, killed and run again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from ray_cluster import clean_environment

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "spark": {
        "driver_memory": "1g",
        "shuffle_partitions": 1,
        "java_options": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    },
    "ray": {"object_store_gb": 0.1},
}
"""Settings of a recipe whose engines start quickly."""


def start(job, recipe, *overrides, environment=None):
    """Start a file of `jobs/`."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / f"{job}.py"), recipe, *overrides],
        env=environment or clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    """What it printed; it must end well."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def wait_for(condition, process):
    """Until it holds, while the program runs."""
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)


def kill(process):
    """kill -9, and what was on its way to an endpoint is there, too."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
