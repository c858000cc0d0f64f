"""Configs, runs and the training set of the evolve step."""

import json

import pytest

from evolved import Script, pair
from handmade import put
from tagsieve.evolving import EvolveConfig, evolve


@pytest.fixture
def script(endpoint):
    return Script(endpoint)


@pytest.fixture
def make_config(endpoint, tmp_path):
    def make(**settings):
        generator = {"kind": "http", "base_url": endpoint.url, "model": "stub", "retries": 0}
        generator |= settings.pop("generator", {})
        defaults = {"what": "complexity", "name": "set", "path": str(tmp_path / "out"), "rounds": 2}
        return EvolveConfig.model_validate(defaults | {"generator": generator} | settings)

    return make


@pytest.fixture
def run(make_context):
    """Runs the step (or `function`) as one run; gives its line of the ledger."""

    def run_it(config, function=evolve, step="evolve", limit=None, *arguments):
        context = make_context(step, limit)
        function(context, config, *arguments)
        context.run.check()
        return context.run

    return run_it


@pytest.fixture
def training_set(tmp_path):
    def read(name="set"):
        path = tmp_path / "out" / f"{name}.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    return read


@pytest.fixture
def add_pairs(lake):
    def add(*rows):
        put(lake, "samples", [row if isinstance(row, dict) else pair(row) for row in rows])

    return add
