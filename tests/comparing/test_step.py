"""Comparison of selections: figures against plain Python, and what a page may not hold."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from pyspark.sql import functions as F

from handmade import put, sample, tagged
from pages import Elements, check_alone
from parity.neighbours import kth_distances
from tagsieve.comparing import compare
from tagsieve.comparing import diversity as module
from tagsieve.comparing.overlap import overlap
from tagsieve.comparing.rows import compared_rows
from tagsieve.comparing.table import show_comparison
from tagsieve.comparing.tags import ontology_versions, tag_figures, tagged_rows
from tagsieve.console import Console
from tagsieve.engines import vector_rows
from tagsieve.errors import RunError, UsageError
from tagsieve.lake import Lake

EVIL = "<script>alert(1)</script>\"'><img src=http://evil.example/x> $\\frac$ --"

SETS = {"first": range(6), "twin": range(6), "part": range(4, 9), "apart": range(20, 23)}
NAMES = list(SETS)
TAGS = {0: ["sql", f"tag {EVIL}"], 1: ["sql"], 2: [], 5: ["poem", "sql"], 7: ["rare"], 40: ["lost"]}
"""Sample -> tags; those not named have no row in `tags`."""

VERBS = {0: "Write a story.", 1: "Write a poem.", 4: "List five tips", 5: "List five tips"}


def key(number):
    return f"s{number:02}"


def pool(number):
    return f"pool {EVIL}" if number % 3 == 0 else "p"


def turns(number):
    asked = VERBS.get(number, "a" * number + EVIL)
    return [("system", "no one counts this"), ("user", asked), ("assistant", "b" * number),
            ("user", "你好"), ("assistant", "c")]  # fmt: skip


def whole_sample(number):
    queries = [f"q{turns(number)[1][1]}", "q2"]
    return sample(pool(number), key(number), queries, turns(number), row=number)


def vectors():
    return np.random.default_rng(3).normal(size=(24, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def full_lake(tmp_path_factory):
    """Three selections, two of them alike, one that shares no row with them, and a mixture, which
    shares two and holds one of its rows twice."""
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    numbers = [*range(9), *range(20, 23), 40]
    put(lake, "samples", [whole_sample(n) for n in numbers])
    chosen = {name: [(pool(n), key(n)) for n in numbers] for name, numbers in SETS.items()}
    mixed = chosen.pop("part")
    select(lake, chosen)
    put(lake, "mixtures",
        [{"mixture": "part", "position": position, "pool": of, "sample_id": sample_id,
          "copy": int(position == len(mixed)), "part": "a", "run_id": "run"}
         for position, (of, sample_id) in enumerate([*mixed, mixed[1]])])  # fmt: skip
    put(lake, "tags", [tagged(key(n), *tags) for n, tags in TAGS.items()])
    put(lake, "ontology_versions", [{"version": "v1", "tagger": "t"}])
    put(lake, "scores",
        [{"sample_id": key(n), "turn": turn, "scorer": f"ifd {EVIL}", "value": n + turn / 2}
         for n in range(6) for turn in (0, 1)]
        + [{"sample_id": key(n), "turn": 0, "scorer": "other"} for n in range(6)])  # fmt: skip
    put(lake, "embeddings",
        [{"sample_id": key(n), "encoder": "e", "vector": vectors()[n].tolist()}
         for n in numbers if n < 24 and n != 8]
        + [{"sample_id": key(8), "encoder": "e", "vector": [0.0] * 8}])  # fmt: skip
    return lake


def select(lake, rows, run_id="run"):
    for name, chosen in rows.items():
        made = {"selection": name, "run_id": run_id}
        put(lake, "selections",
            [made | {"pool": of_pool, "sample_id": sample_id, "rank": rank}
             for rank, (of_pool, sample_id) in enumerate(chosen)])  # fmt: skip


def compared(lake, engines, names, folder):
    """The figures as they are stored, and the page."""
    out = folder / "new" / "compare.html"
    compare(lake, engines, Console(quiet=True), names, str(out))
    found = json.loads((folder / "new" / "compare.json").read_text("utf-8"))
    return found, out.read_text("utf-8")


@pytest.fixture(scope="module")
def outcome(full_lake, engines, tmp_path_factory):
    before = {name: full_lake.version(name) for name in full_lake.tables()}
    found = compared(full_lake, engines, NAMES, tmp_path_factory.mktemp("out"))
    assert {name: full_lake.version(name) for name in full_lake.tables()} == before
    return found


@pytest.fixture(scope="module")
def figures(outcome):
    found, _ = outcome
    assert [each["name"] for each in found["selections"]] == NAMES
    return {each["name"]: each for each in found["selections"]}


def test_compare_overlap_is_jaccard_of_pool_and_id(outcome):
    pairs = {(pair["selection"], pair["other"]): pair for pair in outcome[0]["overlap"]}
    assert set(pairs) == set(itertools.product(NAMES, NAMES))
    for (name, other), pair in pairs.items():
        one, two = set(SETS[name]), set(SETS[other])
        assert pair["shared"] == len(one & two)
        assert pair["jaccard"] == pytest.approx(len(one & two) / len(one | two))
    assert pairs["first", "apart"]["jaccard"] == 0
    assert pairs["first", "twin"]["jaccard"] == 1


def test_compare_counts_rows_and_pools(figures):
    for name, chosen in SETS.items():
        assert figures[name]["rows"] == len(chosen)
        assert figures[name]["pools"] == Counter(map(pool, chosen))
        assert figures[name]["run_id"] == "run"


def test_compare_tags_are_coverage_of_all_and_mean_of_tagged_rows(figures):
    every = {tag for tags in TAGS.values() for tag in tags}
    for name, chosen in SETS.items():
        there = [TAGS[n] for n in chosen if n in TAGS]
        held = {tag for tags in there for tag in tags}
        told = figures[name]["tags"]
        assert (told["ontology_version"], told["tagged"]) == ("v1", len(there))
        assert (told["tags"], told["all"]) == (len(held), len(every))
        assert told["coverage"] == pytest.approx(len(held) / len(every))
        wanted = np.mean([len(tags) for tags in there]) if there else None
        assert told["mean"] == (wanted if wanted is None else pytest.approx(wanted))


def test_compare_lengths_and_scores_have_exact_deciles(figures, outcome):
    def check(told, values):
        assert told["count"] == len(values)
        assert told["mean"] == pytest.approx(np.mean(values))
        wanted = np.quantile(values, np.linspace(0, 1, 11)).tolist()
        assert told["deciles"] == pytest.approx(wanted)

    for name, chosen in SETS.items():
        for part, role in (("instruction", "user"), ("response", "assistant")):
            values = [sum(len(t) for r, t in turns(n) if r == role) for n in chosen]
            check(figures[name]["lengths"][part], values)
        scored = [n + turn / 2 for n in chosen if n < 6 for turn in (0, 1)]
        assert set(figures[name]["scores"]) == ({f"ifd {EVIL}"} if scored else set())
        if scored:
            check(figures[name]["scores"][f"ifd {EVIL}"], scored)
    assert "no scores of apart; the step score makes them" in outcome[0]["lacking"]


def test_compare_diversity_is_mean_distance_to_the_nearest_usable_row(figures):
    for name, chosen in SETS.items():
        usable = [n for n in chosen if n != 8]
        (told,) = figures[name]["diversity"]
        assert told["encoder"] == "e"
        assert told["rows"] == told["measured"] == len(usable)
        assert told["mean"] == pytest.approx(kth_distances(vectors()[usable], 1).mean(), abs=1e-14)
    assert figures["first"]["diversity"] == figures["twin"]["diversity"]


@pytest.mark.parametrize("most", [1, 30])
def test_diversity_of_more_rows_is_over_a_sample_of_them_each_against_all(
    lake, make_context, monkeypatch, most
):
    rows = [("p" if n % 2 else "q", key(n)) for n in range(100)]
    few = rows[:9]
    select(lake, {"many": rows, "few": few})
    drawn = np.random.default_rng(5).normal(size=(100, 8)).astype(np.float32)
    # Some that cannot be compared.
    drawn[::10] = 0
    put(lake, "embeddings",
        [{"sample_id": key(n), "encoder": "e", "vector": drawn[n].tolist()}
         for n in range(100)])  # fmt: skip
    # Many groups and tasks.
    monkeypatch.setitem(vector_rows.WRITTEN, "parquet.block.row.count.limit", 7)
    monkeypatch.setattr(module, "TASK_BYTES", 4 * 8 * 5)
    context = make_context("compare")
    names = ["many", "few"]
    found = {
        each.selection: each
        for each in module.diversity(context, compared_rows(context, names), names, most)
    }
    for name, chosen in (("many", rows), ("few", few)):
        hashed = context.engines.spark.createDataFrame(
            [(place, *row) for place, row in enumerate(chosen)], "place int, pool string, id string"
        ).orderBy(F.xxhash64(F.lit("diversity"), "id", "pool"))
        usable = [n for n in range(len(chosen)) if drawn[n].any()]
        sampled = {row["place"] for row in hashed.limit(most).collect()}
        measured = [place for place, n in enumerate(usable) if n in sampled]
        wanted = kth_distances(drawn[usable], 1)[measured].mean()
        assert (found[name].rows, found[name].measured) == (len(usable), len(measured))
        assert found[name].mean == pytest.approx(wanted, abs=1e-14)


def test_compare_with_few_diversity_rows_says_over_how_many_a_mean_is(
    full_lake, engines, tmp_path, capsys
):
    out = tmp_path / "compare.html"
    compare(full_lake, engines, Console(), ["first", "apart"], str(out), diversity_rows=4)
    told = capsys.readouterr().out
    assert "nearest of first: mean over 4 of 6 rows" in told
    assert "nearest of apart" not in told
    assert "(mean over 4 of 6 rows)" in out.read_text("utf-8")


def test_compare_without_diversity_rows_measures_none_and_says_so(
    full_lake, engines, tmp_path, capsys
):
    out = tmp_path / "compare.html"
    compare(full_lake, engines, Console(), ["apart"], str(out), diversity_rows=0)
    found = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert found["selections"][0]["diversity"] == []
    assert "no diversity of any selection; --diversity-rows is 0" in capsys.readouterr().out


def test_compare_verbs_are_those_of_first_human_turns(figures):
    found = {verb["verb"]: verb for verb in figures["first"]["verbs"]}
    assert [verb["verb"] for verb in figures["first"]["verbs"][:2]] == ["list", "write"]
    assert found["list"]["objects"] == [{"object": "tip", "count": 2}]
    assert found["write"]["objects"] == [
        {"object": "poem", "count": 1}, {"object": "story", "count": 1},
    ]  # fmt: skip
    assert figures["first"]["instructions"] == 6


def test_compare_names_what_only_one_selection_has(figures):
    only = {name: figures[name]["only"] for name in NAMES}
    assert {name: only[name]["rows"] for name in NAMES} == {
        "first": 0, "twin": 0, "part": 3, "apart": 3,
    }  # fmt: skip
    assert [row["sample_id"] for row in only["part"]["examples"]] == [key(6), key(7), key(8)]
    assert only["part"]["examples"][1]["tags"] == ["rare"]
    assert only["part"]["examples"][0]["turns"][1] == ["user", "a" * 6 + EVIL]
    assert only["part"]["top_tags"] == [{"tag": "rare", "rows": 1}]
    # Both twins have them.
    assert (only["first"]["tags"], only["first"]["top_tags"]) == (0, [])


def test_compare_page_refers_to_nothing_outside_itself_and_shows_text_as_text(outcome):
    _, html = outcome
    check_alone(html)
    assert "<script" not in html
    assert "<img" not in html
    text = "".join(Elements(html).words)
    assert "a" * 6 + EVIL in text
    assert f"pool {EVIL}" in text


def test_compare_page_has_a_figure_for_each_part(outcome):
    _, html = outcome
    text = " ".join("".join(Elements(html).words).split())
    assert "4 selections compared" in text
    assert "Left out: no scores of apart" in text
    assert "part: 3 of 5 rows, 1 of 3 tags" in text
    # Overlap, pools, tags, diversity, two lengths, a score, and the verbs of those that have some.
    verbs = sum(bool(each["verbs"]) for each in outcome[0]["selections"])
    assert html.count("<svg") == 7 + verbs


def test_compare_of_one_selection_without_tags_scores_and_vectors_says_so(
    lake, engines, tmp_path, capsys
):
    said = [("user", "12"), ("assistant", "")]
    put(lake, "samples", [sample("p", key(n), turns=said) for n in range(2)])
    select(lake, {"mine": [("p", key(n)) for n in range(2)]})
    # What cannot be compared is no vector.
    unusable = {"encoder": "e", "vector": [0.0, 0.0]}
    put(lake, "embeddings", [unusable | {"sample_id": key(n)} for n in range(2)])
    compare(lake, engines, Console(), ["mine", "mine"], str(tmp_path / "compare.html"))
    found = json.loads((tmp_path / "compare.json").read_text("utf-8"))
    (mine,) = found["selections"]
    assert (mine["tags"], mine["scores"], mine["diversity"], mine["verbs"]) == (None, {}, [], [])
    assert mine["only"] is None
    html = (tmp_path / "compare.html").read_text("utf-8")
    told = capsys.readouterr().out
    for what in ("tags", "scores", "vectors of two rows", "root verbs"):
        assert f"no {what} of any selection" in html
        assert f"no {what} of any selection" in told
    # Pools and two lengths.
    assert html.count("<svg") == 3
    assert "Overlap" not in html


def test_compare_takes_the_ontology_version_that_was_there_for_the_selection(lake, make_context):
    put(lake, "tags", [tagged(key(0), "old"), tagged(key(1), "older")])
    done = {"step": "select", "status": "done"}
    pinned = {"early": [("tags", lake.version("tags"))], "blind": [("samples", 0)]}
    put(lake, "runs", [done | {"run_id": run_id, "read": read} for run_id, read in pinned.items()])
    put(lake, "tags", [tagged(key(n), "new", "newer", version="v10") for n in range(3)])
    put(lake, "tags", [tagged(key(n), "middle", version="v9") for n in range(3)])
    put(lake, "tags", [tagged(key(0), "of a build that was cut off", version="v11")])
    made = [{"version": version, "tagger": "t"} for version in ("v1", "v10", "v9")]
    put(lake, "ontology_versions", made)
    for run_id in ("early", "blind", "gone"):
        select(lake, {run_id: [("p", key(0))]}, run_id)
    context = make_context("compare")
    rows = compared_rows(context, ["early", "blind", "gone"])
    versions = ontology_versions(context, rows, ["early", "blind", "gone"])
    assert versions == {"early": "v1", "blind": "v10", "gone": "v10"}
    tags = context.pinned("tags")
    found = tag_figures(tagged_rows(rows, tags, versions), tags).collect()
    assert {row["selection"]: (row["tags"], row["all"], row["coverage"]) for row in found} == {
        "early": (1, 2, 0.5), "blind": (2, 2, 1.0), "gone": (2, 2, 1.0),
    }  # fmt: skip


def test_table_of_many_selections_shows_the_pairs_that_share_most(capsys):
    sizes = {f"longest-n{size}": size for size in range(1, 31)}
    lengths = {part: {"deciles": [1.0] * 11} for part in ("instruction", "response")}
    plain = {"pools": {"p": 1}, "tags": None, "lengths": lengths, "diversity": [], "verbs": []}
    listed = [plain | {"name": name, "rows": size, "only": {"rows": 0, "tags": 0}}
              for name, size in sizes.items()]  # fmt: skip
    shared = {(a, b): min(sizes[a], sizes[b]) for a, b in itertools.product(sizes, sizes)}
    found = {"lake": "l", "selections": listed, "overlap": overlap(list(sizes), shared)}
    show_comparison(Console(), found | {"lacking": []})
    told = capsys.readouterr().out
    pairs = told[told.index("the pairs of which the rows have the greatest Jaccard index") :]
    first, *_, last = [line.split("│") for line in pairs.splitlines() if "│ longest" in line]
    assert [cell.strip() for cell in first[1:5]] == ["longest-n29", "longest-n30", "29", "0.967"]
    assert pairs.count("│ longest") == 2 * 20
    assert float(last[4]) < 0.967


def test_compare_of_a_selection_that_is_not_there_names_those_that_are(full_lake, engines, lake):
    with pytest.raises(
        UsageError, match=r"compare frist: .* did you mean first\? known: apart, first"
    ):
        compare(full_lake, engines, Console(quiet=True), ["part", "frist"], "out.html")
    with pytest.raises(
        UsageError, match=r"compare mine: .* has no selection or mixture yet; run the step"
    ):
        compare(lake, engines, Console(quiet=True), ["mine"], "out.html")


def test_compare_below_a_plain_file_names_the_option(full_lake, engines, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"--out=.*: cannot be written"):
        compare(full_lake, engines, Console(quiet=True), ["apart"], str(tmp_path / "file/x.html"))
