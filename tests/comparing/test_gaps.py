"""The command gaps: figures against plain counts, and what it refuses."""

import json
from collections import Counter

import pytest

from handmade import answer, put, sample, tagged
from pages import check_alone
from tagsieve.comparing import gaps
from tagsieve.console import Console
from tagsieve.errors import UsageError
from tagsieve.lake import Lake

EVIL = "<script>alert(1)</script>"

TARGET = {
    "t1": ["sql", "poem"],
    "t2": ["sql"],
    "t3": ["poem", EVIL],
    "t4": ["math"],
    "t5": ["sql", "math", "lost"],
    "t6": [],
    "t7": None,
}
POOL = {**{f"p{n}": ["math", *(["poem"] if n < 3 else [])] for n in range(9)}, "p9": ["other"]}
RAW = {"t1": ["odd one"], "t2": ["odd one"], "t3": ["odd too"], "p1": ["odd too"], "t4": ["sql"]}
"""Raw tags of whom; of these only sql is in the ontology."""


def conversation(pool, key):
    turns = [("user", f"ask {key} {EVIL}"), ("assistant", "a")]
    return sample(pool, key, [f"q{key}"], turns)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    put(lake, "samples", [conversation("wanted", key) for key in TARGET])
    # One conversation of the target is in a pool, too.
    put(lake, "samples", [conversation("p", key) for key in [*POOL, "t4"]])
    there = {**TARGET, **POOL}
    put(lake, "tags", [tagged(key, *tags) for key, tags in there.items() if tags is not None])
    put(lake, "raw_tags", [answer(f"q{key}", *tags) for key, tags in RAW.items()])
    fate = {"sql": "kept", "odd one": "rare", "odd too": "pending"}
    put(
        lake,
        "ontology",
        [{"version": "v1", "raw_tag": tag, "status": status, "update": 0}
         for tag, status in fate.items()],
    )  # fmt: skip
    put(lake, "ontology_versions", [{"version": "v1", "tagger": "t"}])
    # Of a build that was cut off.
    put(lake, "tags", [tagged("t1", "cut off", version="v2")])
    picked = [{"selection": "few", "pool": "p", "sample_id": f"p{n}", "rank": n} for n in range(4)]
    put(lake, "selections", picked)
    return lake


def told(lake, engines, folder, **settings):
    out = folder / "gaps.html"
    gaps(lake, engines, Console(quiet=True), ["wanted"], str(out), **settings)
    check_alone(out.read_text("utf-8"))
    return json.loads((folder / "gaps.json").read_text("utf-8"))


@pytest.mark.parametrize("selection", [None, "few"])
def test_gaps_are_the_targets_tags_on_too_few_rows(lake, engines, tmp_path, selection):
    found = told(lake, engines, tmp_path, selection=selection, at_least=4)
    rows = [POOL[f"p{n}"] for n in range(4)] if selection else [*POOL.values(), TARGET["t4"]]
    here = Counter(tag for tags in rows for tag in tags)
    own = Counter(tag for tags in TARGET.values() for tag in tags or [])
    lacking = sorted((tag for tag in own if here[tag] < 4), key=lambda t: (-own[t], here[t], t))
    assert [(each["tag"], each["target"], each["rows"]) for each in found["gaps"]] == [
        (tag, own[tag], here[tag]) for tag in lacking
    ]
    assert found["gaps"][0]["examples"] == [f"ask {key} {EVIL}" for key in ("t1", "t2", "t5")]
    assert found["tags"] == len(own)
    assert found["missing"] == sum(not here[tag] for tag in own)
    assert found["missing"] + found["few"] == len(lacking)
    assert found["target"] == {"rows": 7, "tagged": 6}
    assert found["there"] == {"rows": len(rows), "tagged": len(rows)}
    unmet = sum(bool(set(tags or []) & set(lacking)) for tags in TARGET.values())
    assert found["met"] == pytest.approx((6 - unmet) / 6)
    odd = [{"tag": "odd one", "target": 2, "rows": 0,
            "examples": [f"ask {key} {EVIL}" for key in ("t1", "t2")]}]  # fmt: skip
    if selection is None:
        assert found["rare"] == odd


def test_gaps_names_what_is_not_there(lake, engines, tmp_path):
    def refused(match, targets=("wanted",), **settings):
        with pytest.raises(UsageError, match=match):
            gaps(lake, engines, Console(quiet=True), targets, str(tmp_path / "g.html"), **settings)

    refused(r"gaps wantd: .* no such pool; did you mean wanted\? known: p, wanted", ["wantd"])
    refused("there is no other pool", ["wanted", "p"])
    refused("gaps --selection many: .* known: few", selection="many")
    refused("gaps --version v9: known: v1", version="v9")
    refused("gaps --version v2: known: v1$", version="v2")


def test_gaps_without_tags_names_the_steps(engines, tmp_path):
    lake = Lake(str(tmp_path / "bare"))
    put(lake, "samples", [conversation("wanted", "t1"), conversation("p", "p1")])
    with pytest.raises(UsageError, match="has no tags; run the steps tag and normalize"):
        gaps(lake, engines, Console(quiet=True), ["wanted"], str(tmp_path / "g.html"))
