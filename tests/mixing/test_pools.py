"""The paper's studies with its pools: Alpaca, P3 and CodeAlpaca, whole."""

import gzip
import json
from collections import Counter

import pytest

from handmade import recorded
from mixed import mix_config, mixture_names, mixture_of
from tagsieve.errors import RunError
from tagsieve.ingest import IngestConfig, Input, ingest
from tagsieve.lake import Lake
from tagsieve.mixing import mix

pytestmark = pytest.mark.slow

POOLS = ["alpaca", "p3", "code_alpaca"]
PARTS = {"A": ["alpaca"], "C": ["code_alpaca"], "P": ["p3"]}
_made = {}


@pytest.fixture
def lake(shared_data, tmp_path_factory, engines):
    """The three pools, ingested once."""
    if "lake" not in _made:
        _made["lake"] = made = Lake(str(tmp_path_factory.mktemp("pools") / "lake"))
        inputs = [Input(pool=p, path=str(shared_data / f"pools/{p}.jsonl.gz")) for p in POOLS]
        recorded(made, engines, "ingest", "ingest", ingest, inputs, IngestConfig())
    return _made["lake"]


@pytest.fixture
def run_mix(lake, engines):
    def run(**values):
        config = mix_config(values)
        return recorded(lake, engines, "mix", f"mix {values['name']}", mix, config, POOLS)

    return run


def by_part(lake, name):
    return Counter(part for part, *_ in mixture_of(lake, name))


def test_mix_eight_combinations_of_6500_each(run_mix, lake):
    run = run_mix(name="eight", strategy="combinations", each=6_500, parts=PARTS)
    names = ["A", "C", "P", "A-C", "A-P", "C-P", "A-C-P"]
    assert {f"eight-{name}" for name in names} <= mixture_names(lake)
    assert mixture_of(lake, "eight-none") == []
    drawn = {}
    for name in names:
        parts = name.split("-")
        told = mixture_of(lake, f"eight-{name}")
        assert Counter(part for part, *_ in told) == dict.fromkeys(parts, 6_500)
        assert len({key for _, _, key, _ in told}) == len(told)
        for part in parts:
            mine = [key for p, _, key, _ in told if p == part]
            assert drawn.setdefault(part, mine) == mine
        for end in (100, 1_000, 5_000):
            beginning = Counter(part for part, *_ in told[:end])
            assert all(abs(beginning[part] - end / len(parts)) <= 2 for part in parts)
    assert run.kept == 3 * 6_500
    assert run.input == lake.delta("samples").count()


def test_mix_ratio_study_of_general_and_nlp(run_mix, lake):
    parts = {"general": ["alpaca"], "nlp": ["p3"]}
    run_mix(name="nlp", strategy="ratios", base="general", base_size=20_000, parts=parts)
    for ratio in (0.5, 1, 1.5, 2):
        found = by_part(lake, f"nlp-r{ratio:g}")
        assert found == {"general": 20_000, "nlp": 20_000 * ratio}


def test_mix_ratio_study_of_general_and_code(run_mix, lake):
    parts = {"general": ["alpaca"], "code": ["code_alpaca"]}
    study = {"strategy": "ratios", "base": "general", "parts": parts}
    run_mix(name="code", base_size=3_000, **study)
    for ratio in (0.5, 1, 1.5, 2):
        found = by_part(lake, f"code-r{ratio:g}")
        assert found == {"general": 3_000, "code": 3_000 * ratio}
    with pytest.raises(RunError) as error:
        run_mix(name="over", base_size=20_000, **study)
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert all(" are asked of the part code, which has 6," in line for line in lines)
    assert all(line.endswith("set mix.over_ask to cap or replace") for line in lines)


def test_mix_caps_each_template_at_100(run_mix, lake, shared_data):
    parts = {"P": ["p3"]}
    with gzip.open(shared_data / "pools/p3.jsonl.gz", "rt", encoding="utf-8") as lines:
        templates = {json.loads(line)["template"] for line in lines}
    table = lake.arrow("samples", ["sample_id", "meta"], [("pool", "=", "p3")])
    rows = table.to_pylist(maps_as_pydicts="strict")
    samples = {row["sample_id"]: row["meta"]["template"] for row in rows}
    assert set(samples.values()) == templates
    assert len(templates) == 283
    expected = sum(min(n, 100) for n in Counter(samples.values()).values())
    run = run_mix(name="capped", each=expected, subtask="template", cap=100, parts=parts)
    found = Counter(samples[key] for _, _, key, _ in mixture_of(lake, "capped"))
    assert max(found.values()) == 100
    assert found.total() == expected
    assert run.rejected["over_cap"] == len(samples) - expected > 0
