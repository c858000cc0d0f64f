"""The files of `jobs/` handed to spark-submit and to ray job submit, against real ones."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest

from tagsieve.engines.spark import delta_jars
from tagsieve.lake import Lake

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "conf/recipes/demo.yaml")
pytestmark = pytest.mark.slow


def test_job_files_hide_no_module_of_the_standard_library():
    names = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert not names & sys.stdlib_module_names


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def clean_environment(**settings):
    """The tests' environment without what an engine of this process has put there."""
    engine = re.compile(r"^(PYSPARK_|SPARK_|RAY_)")
    kept = {name: value for name, value in os.environ.items() if not engine.match(name)}
    return kept | settings


def test_spark_submit_runs_a_job_file(demo, tmp_path):
    home = str(Path(pyspark.__file__).parent)
    command = [
        f"{home}/bin/spark-submit",
        *("--master", "local[1]", "--driver-memory", "1g"),
        *("--jars", ",".join(map(str, delta_jars()))),
        *("--conf", "spark.ui.enabled=false", "--conf", "spark.sql.shuffle.partitions=1"),
        str(ROOT / "jobs/normalize.py"),
        *(RECIPE, f"lake={demo}/lake", "normalize.min_count=3"),
    ]
    environment = clean_environment(
        SPARK_HOME=home, PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1"
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "normalize" in done.stdout
    versions = Lake(f"{demo}/lake").arrow("ontology_versions").to_pylist()
    assert '"min_count":3' in max(versions, key=lambda row: row["created"])["config"]


def test_spark_submit_without_delta_says_what_to_add(tmp_path):
    home = str(Path(pyspark.__file__).parent)
    command = [
        f"{home}/bin/spark-submit",
        *("--master", "local[1]", "--conf", "spark.ui.enabled=false"),
        str(ROOT / "jobs/ingest.py"),
        *(RECIPE, f"lake={tmp_path}/lake"),
    ]
    environment = clean_environment(SPARK_HOME=home, PYSPARK_PYTHON=sys.executable)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    # spark-submit joins a Python program's two outputs into one.
    assert "--packages io.delta:delta-spark" in done.stdout


@pytest.fixture
def ray_head(tmp_path):
    """A Ray head of its own, with a HOME of its own for its token; ended by its process group."""
    port, dashboard, agent = free_ports(3)
    environment = clean_environment(
        HOME=str(tmp_path),
        XDG_CACHE_HOME=os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        RAY_AUTH_MODE="token",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    ray = str(Path(sys.executable).parent / "ray")
    subprocess.run(
        [ray, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True
    )
    command = [
        ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--num-cpus=3",
        # Its default is taken by the tests' own Ray, and without its agent no job can start.
        f"--dashboard-agent-listen-port={agent}", "--object-store-memory=200000000",
        "--disable-usage-stats",
    ]  # fmt: skip
    log = (tmp_path / "head.log").open("w")
    head = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while head.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", dashboard)) == 0:
                    break
            time.sleep(0.5)
        else:
            said = (tmp_path / "head.log").read_text()
            pytest.fail(f"the Ray head did not start: {said[-2000:]}")
        yield ray, f"http://127.0.0.1:{dashboard}", environment
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        log.close()


def test_ray_job_submit_runs_a_job_file(demo, ray_head, own_bank):
    ray, address, environment = ray_head
    submit = [
        *(ray, "job", "submit", "--address", address, "--"),
        *(sys.executable, str(ROOT / "jobs/tag.py")),
        *(RECIPE, f"lake={demo}/lake", f"tag.banks=[{own_bank}]"),
    ]
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            submit, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=400
        )
        # The head answers before its job agent is there.
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "429 kept" in done.stdout
    taggers = Lake(f"{demo}/lake").arrow("raw_tags", ["tagger"])["tagger"].to_pylist()
    assert sum("own" in tagger for tagger in taggers) == 429
