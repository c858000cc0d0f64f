"""The files of `jobs/` handed to spark-submit and to ray job submit, against real ones."""

import subprocess
import sys
import time
from pathlib import Path

import pyspark
import pytest
import yaml

from programs import SMALL, finish, start
from ray_cluster import RAY, clean_environment
from tagsieve.engines.spark import delta_jars
from tagsieve.lake import Lake

ROOT = Path(__file__).resolve().parents[2]
RECIPE = str(ROOT / "conf/recipes/demo.yaml")
pytestmark = pytest.mark.slow


def test_job_files_hide_no_module_of_the_standard_library():
    names = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert not names & sys.stdlib_module_names


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


def test_python_of_the_workers_is_the_one_that_the_environment_names(tmp_path):
    used, python = tmp_path / "used", tmp_path / "python"
    python.write_text(f'#!/bin/sh\ntouch {used}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    recipe, rows = tmp_path / "recipe.yaml", tmp_path / "one.jsonl"
    rows.write_text('{"instruction": "ask", "input": "", "output": "say"}\n')
    inputs = [{"path": str(rows), "pool": "p"}]
    recipe.write_text(yaml.safe_dump({"lake": str(tmp_path / "lake"), "inputs": inputs} | SMALL))
    environment = clean_environment(PYSPARK_PYTHON=str(python))
    assert "1 kept" in finish(start("ingest", str(recipe), environment=environment))
    assert used.exists()


def test_ray_job_submit_runs_a_job_file(demo, start_cluster, own_bank):
    cluster = start_cluster(head_cpus=3)
    submit = [
        *(RAY, "job", "submit", "--address", cluster.dashboard_address, "--"),
        *(sys.executable, str(ROOT / "jobs/tag.py")),
        *(RECIPE, f"lake={demo}/lake", f"tag.banks=[{own_bank}]"),
    ]
    deadline = time.monotonic() + 120
    while True:
        done = subprocess.run(
            submit, env=cluster.environment, capture_output=True, text=True, cwd=ROOT, timeout=400
        )
        # The head answers before its job agent is there.
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "429 kept" in done.stdout
    taggers = Lake(f"{demo}/lake").arrow("raw_tags", ["tagger"])["tagger"].to_pylist()
    assert sum("own" in tagger for tagger in taggers) == 429
