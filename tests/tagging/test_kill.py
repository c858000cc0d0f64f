"""kill -9 in the middle of a tag step, then the same command: the table of an undisturbed run.

The engine is counted from outside: a stub endpoint in this process outlives whoever is killed.
"""

import random
from contextlib import suppress

import psutil
import pytest
import yaml

from programs import SMALL, finish, kill, start, wait_for
from query_lakes import add_samples, tagged
from stub_endpoint import tags_for
from tagsieve import records
from tagsieve.lake import Lake
from tiny_llama import FAST

QUERIES = [f"Query number {n} about {word}" for n in range(100) for word in ("sea", "sun", "ice")]
COMMIT_ROWS = 40


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe with a tagger, over a lake of the queries."""

    def write(tagger):
        lake = Lake(str(tmp_path / "lake"))
        add_samples(lake, QUERIES)
        settings = {"lake": lake.root, "steps": ["tag"], "tag": tagger} | SMALL
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings))
        return lake, str(path)

    return write


def actors(process):
    """The actors below a program; one of them may end while they are listed."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "LlmTagger" in " ".join(child.cmdline()):
                found.append(child)
    return found


def assert_undisturbed(lake, queries=QUERIES):
    found = {query_id: tags for (query_id, _), tags in tagged(lake).items()}
    assert found == {records.query_id(q): [t["tag"] for t in tags_for(q)] for q in queries}
    assert lake.arrow("raw_tags").num_rows == len(queries)
    assert lake.arrow("quarantine").num_rows == 0


def http(endpoint, **settings):
    return {
        "kind": "http",
        "base_url": endpoint.url,
        "model": "stub",
        "concurrency": 8,
        "commit_rows": COMMIT_ROWS,
    } | settings


def kill_driver_at(point, endpoint, recipe):
    lake, path = recipe(http(endpoint))
    endpoint.delay = 0.02
    process = start("tag", path)
    wait_for(lambda: sum(endpoint.calls.values()) >= point, process)
    kill(process)
    finish(start("tag", path))
    assert_undisturbed(lake)
    assert sum(endpoint.calls.values()) - len(QUERIES) <= COMMIT_ROWS


def kill_actor_at(point, endpoint, recipe):
    lake, path = recipe(http(endpoint))
    endpoint.delay = 0.02
    process = start("tag", path)
    wait_for(lambda: sum(endpoint.calls.values()) >= point, process)
    for actor in actors(process):
        actor.kill()
    finish(process)
    assert_undisturbed(lake)
    assert sum(endpoint.calls.values()) - len(QUERIES) <= COMMIT_ROWS


def kill_node_at(point, endpoint, recipe, start_cluster):
    """The node with the actor is lost; another one comes."""
    cluster = start_cluster(head_cpus=0)
    node = cluster.add_node(cpus=1)
    lake, path = recipe(http(endpoint))
    endpoint.delay = 0.02
    process = start("tag", path, f"ray.address={cluster.address}", environment=cluster.environment)
    wait_for(lambda: sum(endpoint.calls.values()) >= point, process)
    cluster.kill(node)
    cluster.add_node(cpus=1)
    finish(process)
    assert_undisturbed(lake)
    assert sum(endpoint.calls.values()) - len(QUERIES) <= COMMIT_ROWS


@pytest.mark.slow
def test_driver_killed_between_commits_loses_and_repeats_nothing_committed(endpoint, recipe):
    kill_driver_at(random.Random(1).randrange(len(QUERIES) // 2), endpoint, recipe)


@pytest.mark.slow
def test_actor_killed_is_replaced_and_its_chunks_are_done_again(endpoint, recipe):
    kill_actor_at(random.Random(2).randrange(len(QUERIES) // 2), endpoint, recipe)


@pytest.mark.slow
@pytest.mark.soak
def test_vllm_actor_killed_is_replaced_and_the_run_ends(tiny_llama, recipe):
    lake, path = recipe(
        {
            "kind": "vllm",
            "model": tiny_llama,
            "dtype": "float32",
            "prompt": "open_tags",
            "guided_json": True,
            "max_tags": 1,
            "decoding": {"max_tokens": 600},
            "engine_args": FAST,
            "commit_rows": COMMIT_ROWS,
        }
    )
    before = {p.pid for p in psutil.process_iter()}
    process = start("tag", path)
    wait_for(lambda: lake.version("raw_tags") not in (None, 0), process)  # a first commit
    victims = actors(process)
    assert victims
    for actor in victims:
        actor.kill()
    output = finish(process)
    assert lake.arrow("raw_tags").num_rows == len(tagged(lake)) == len(QUERIES), output
    metrics = dict(lake.arrow("runs").to_pylist()[-1]["metrics"])
    assert metrics["engine_restarts"] == 1
    # Calls that came back; those of the dead engine did not.
    assert metrics["model_calls"] == len(QUERIES)
    # No engine outlives its actor, the killed one's neither; they need a moment to notice.
    left = [p for p in psutil.process_iter() if "VLLM" in p.name() and p.pid not in before]
    assert not psutil.wait_procs(left, timeout=30)[1]


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_point_gives_the_undisturbed_table(seed, endpoint, recipe, start_cluster):
    point = random.Random(seed).randrange(len(QUERIES))
    if seed % 5 == 4:
        kill_node_at(point, endpoint, recipe, start_cluster)
    else:
        (kill_driver_at, kill_actor_at)[seed % 2](point, endpoint, recipe)
