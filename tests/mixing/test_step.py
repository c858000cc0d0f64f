"""The mix step, from tables to mixtures, against plain loops."""

import random
import shutil
from collections import Counter
from itertools import combinations, pairwise

import pytest

from handmade import put, recorded, rows_of, sample, tagged
from mixed import mix_config, mixture_names, mixture_of
from parity import mixing
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.mixing import mix

COUNTS = {"a": 130, "b": 70, "c": 40, "d": 9}
POOLS = list(COUNTS)
TAGS = ["sql", "poem", "math"]
LENGTHS = ["length-1", "length-2"]


def made_row(rng, pool, number, key=None):
    """A conversation of one or two turns: its tokens by turn and scorer, tags, subtask."""
    key = key or f"s{rng.getrandbits(60):015x}"
    rng = random.Random(key)  # what belongs to a content is the same in every pool
    turns, subtask = rng.randint(1, 2), rng.choice(["t1", "t1", "t1", "t2", "t3"])
    return {
        "pool": pool,
        "sample_id": key,
        "subtask": subtask if pool == "c" else None,
        "tags": rng.sample(TAGS, rng.randint(0, 2)) if rng.random() < 0.9 else None,
        "counts": [[rng.randint(0, 60) for _ in LENGTHS] for _ in range(turns)],
        "row": number,
    }


def fill(lake, rows):
    """Put rows into the tables."""
    put(
        lake,
        "samples",
        [
            sample(
                row["pool"],
                row["sample_id"],
                [f"q{n}" for n in range(len(row["counts"]))],
                meta={"template": row["subtask"]} if row["subtask"] else None,
                row=row["row"],
            )
            for row in rows
        ],
    )
    once = {row["sample_id"]: row for row in rows}.values()
    put(lake, "tags", [tagged(r["sample_id"], *r["tags"]) for r in once if r["tags"] is not None])
    score = [
        {"sample_id": row["sample_id"], "turn": turn, "scorer": scorer, "value": float(value)}
        for row in once
        for turn, counts in enumerate(row["counts"])
        for scorer, value in zip(LENGTHS, counts, strict=True)
    ]
    put(lake, "scores", score)


@pytest.fixture(scope="module")
def rows():
    """Rows of four pools; of every pool's, one in ten is in the next pool, too."""
    rng = random.Random(11)
    made = [made_row(rng, pool, n) for pool, count in COUNTS.items() for n in range(count)]
    for here, there in pairwise(POOLS):
        shared = [row for row in made if row["pool"] == here][::10][:5]
        made += [made_row(rng, there, 1000 + n, r["sample_id"]) for n, r in enumerate(shared)]
    return made


@pytest.fixture(scope="module")
def full_lake(rows, tmp_path_factory):
    lake = Lake(str(tmp_path_factory.mktemp("mixed") / "lake"))
    fill(lake, rows)
    return lake


@pytest.fixture
def lake(full_lake, tmp_path):
    return Lake(str(shutil.copytree(full_lake.root, tmp_path / "lake")))


@pytest.fixture
def run_mix(lake, engines):
    numbers = iter(range(100))

    def run(inputs=POOLS, screening=None, **values):
        config = mix_config(values)
        read = ("v1" if "tags" in config.reads else None, LENGTHS if config.tokens_by else [])
        return recorded(
            lake, engines, "mix", f"r{next(numbers)}", mix, config, inputs, *read, screening
        )

    return run


def of_parts(rows, parts=None):
    """Rows, each with its part, that the first of the pools keeps."""
    parts = parts or {pool: [pool] for pool in POOLS}
    part_of = {pool: part for part, pools in parts.items() for pool in pools}
    kept = mixing.of_first_pools(rows, part_of)
    return [row | {"part": part_of[row["pool"]]} for row in kept]


def expect(lake, rows, **mixtures):
    """Check every mixture against the plain loops."""
    assert mixture_names(lake) == mixtures.keys()
    for name, amounts in mixtures.items():
        assert mixture_of(lake, name) == mixing.mixture(rows, amounts), name


def test_mix_equal_takes_as_much_of_each_part_and_accounts_for_all(run_mix, lake, rows):
    parts = {"big": ["b", "a"], "c": ["c"]}
    run = run_mix(each=30, parts=parts, seed=0, explain=True)
    expect(lake, of_parts(rows, parts), mix={"big": 30, "c": 30})
    left = len(of_parts(rows, parts)) - 60
    other = sum(row["pool"] != "d" for row in rows) - len(of_parts(rows, parts))
    no_part = sum(row["pool"] == "d" for row in rows)
    assert (run.unit, run.input, run.kept) == ("sample", len(rows), 60)
    assert run.rejected == {"no_part": no_part, "other_pool": other, "not_selected": left}
    assert run.metrics["rows"] == 60
    assert run.written.keys() == {"mixtures", "rejects"}
    rejects = rows_of(lake, "rejects", run_id="r0", step="mix")
    assert Counter(row["reason"] for row in rejects) == run.rejected
    mixed = {(pool, key) for _, pool, key, _ in mixture_of(lake)}
    left_out = {(row["pool"], row["sample_id"]) for row in rejects}
    assert mixed | left_out == {(row["pool"], row["sample_id"]) for row in rows}
    assert not mixed & left_out
    assert {row["run_id"] for row in rows_of(lake, "mixtures")} == {"r0"}

    version = lake.version("mixtures")
    again = run_mix(each=30, parts=parts, seed=0, explain=True)
    assert (again.known, again.kept, again.input) == (len(rows), 0, len(rows))
    assert lake.version("mixtures") == version


def test_mix_by_another_seed_or_count_replaces_only_its_name(run_mix, lake, rows):
    row = {"pool": "a", "sample_id": "s", "copy": 0, "part": "a", "run_id": "earlier"}
    old = [row | {"mixture": name, "position": n} for name in ("mix", "other") for n in range(50)]
    put(lake, "mixtures", old)
    for seed in (1, 0, 1):
        run_mix(each=5, seed=seed)
    assert mixture_of(lake) == mixing.mixture(of_parts(rows), dict.fromkeys(POOLS, 5), 1)
    assert len(mixture_of(lake, "other")) == 50


@pytest.mark.parametrize(
    ("values", "amounts"),
    [
        (
            {"strategy": "counts", "counts": {"c": 20, "a": 100}},
            {"a": 100, "c": 20},
        ),
        (
            {
                "strategy": "proportions",
                "size": 50,
                "shares": {"a": 0.5, "c": 0.3, "b": 0.15, "d": 0.05},
            },
            {"a": 25, "b": 8, "c": 15, "d": 2},
        ),
    ],
)
def test_mix_in_given_amounts_is_that_of_the_loops(run_mix, lake, rows, values, amounts):
    run = run_mix(**values)
    expect(lake, of_parts(rows), mix=amounts)
    assert run.kept == sum(amounts.values())


def test_mix_takes_its_shares_from_a_selection(run_mix, lake, rows):
    picked = [("b", 1), ("a", 2), ("a", 3), ("c", 4), ("elsewhere", 5)]
    put(
        lake,
        "selections",
        [
            {"selection": "like", "pool": pool, "sample_id": f"x{n}", "rank": n, "run_id": "r"}
            for pool, n in picked
        ],
    )
    mixed = {"strategy": "proportions", "size": 41, "shares_of": "like"}
    run_mix(**mixed, parts={"one": ["a", "d"], "two": ["b"], "three": ["c"]})
    parts = {"one": ["a", "d"], "two": ["b"], "three": ["c"]}
    expect(lake, of_parts(rows, parts), mix={"one": 21, "two": 10, "three": 10})
    with pytest.raises(RunError, match=r"mix\.shares_of=like: its rows are of a, b, c, elsewhere"):
        run_mix(**mixed, parts={"d": ["d"]})
    with pytest.raises(RunError, match=r"mix\.shares_of=like of mix.size=10000: 2,500 rows are"):
        run_mix(**mixed | {"size": 10_000})
    with pytest.raises(RunError, match=r"mix\.shares_of=other: lake .* has no such selection"):
        run_mix(**mixed | {"shares_of": "other"})


def test_mix_temperature_goes_by_what_parts_have(run_mix, lake, rows):
    run_mix(strategy="temperature", size=60, temperature=2)
    there = Counter(row["part"] for row in of_parts(rows))
    roots = {part: there[part] ** 0.5 for part in POOLS}
    found = Counter(part for part, *_ in mixture_of(lake))
    assert found.total() == 60
    for part in POOLS:
        assert abs(found[part] - 60 * roots[part] / sum(roots.values())) < 1
    expect(lake, of_parts(rows), mix={part: found[part] for part in POOLS})


def test_mix_combinations_are_every_set_of_parts_but_none(run_mix, lake, rows):
    parts = {"A": ["a"], "C": ["c"], "P": ["b"]}
    run = run_mix(name="m", strategy="combinations", each=35, parts=parts)
    sets = [chosen for n in (1, 2, 3) for chosen in combinations("ACP", n)]
    named = {"-".join(("m", *chosen)): dict.fromkeys(chosen, 35) for chosen in sets}
    expect(lake, of_parts(rows, parts), **named)
    # A sample in four mixtures is one sample.
    assert (run.kept, run.metrics["rows"]) == (105, 35 * 12)
    assert run_mix(name="m", strategy="combinations", each=35, parts=parts).known == run.input


def test_mix_ratios_and_sizes_hold_the_smaller_in_the_larger(run_mix, lake, rows):
    parts = {"general": ["a"], "special": ["b"]}
    run_mix(name="r", strategy="ratios", base="general", base_size=31, parts=parts)
    special = {"0.5": 16, "1": 31, "1.5": 47, "2": 62}
    named = {f"r-r{ratio}": {"general": 31, "special": n} for ratio, n in special.items()}
    expect(lake, of_parts(rows, parts), **named)
    held = [set(mixture_of(lake, name)) for name in named]
    assert all(small < large for small, large in pairwise(held))

    run_mix(name="s", strategy="sizes", sizes=[4, 40], parts=parts)
    sizes = {f"s-n{n}": dict.fromkeys(parts, n) for n in (4, 40)}
    expect(lake, of_parts(rows, parts), **named, **sizes)


def test_mix_by_tags_puts_a_row_to_the_first_tag_listed(run_mix, lake, rows):
    shares = {"poem": 0.5, "sql": 0.25, "math": 0.25}
    run = run_mix(strategy="tags", size=40, shares=shares, pools=["b", "a"])
    kept = mixing.of_first_pools(rows, ["b", "a"])
    placed = [
        row | {"part": next(tag for tag in shares if tag in row["tags"])}
        for row in kept
        if row["tags"]
    ]
    expect(lake, placed, mix={"poem": 20, "sql": 10, "math": 10})
    assert run.rejected["untagged"] == sum(row["tags"] is None for row in kept)
    none = sum(row["tags"] == [] for row in kept)
    assert run.rejected["no_part"] == none + sum(row["pool"] in "cd" for row in rows)


def test_mix_in_tokens_takes_rows_as_long_as_they_fit(run_mix, lake, rows):
    weighed = [row | {"tokens": sum(map(sum, row["counts"]))} for row in of_parts(rows)]
    run = run_mix(each=700, tokens_by=["x", "y"], parts={"a": ["a"], "b": ["b"]})
    weighed = [row for row in weighed if row["part"] in "ab"]
    expect(lake, weighed, mix={"a": 700, "b": 700})
    assert run.kept < 50
    tokens = {row["sample_id"]: row["tokens"] for row in weighed}
    for part in "ab":
        used = sum(tokens[key] for of, _, key, _ in mixture_of(lake) if of == part)
        assert 700 - 240 < used <= 700
    with pytest.raises(RunError, match=r"1,000,000 tokens are asked of the part a, which has \d"):
        run_mix(each=10**6, tokens_by=["x", "y"])


def test_mix_in_tokens_leaves_out_what_lacks_a_score(run_mix, lake, rows):
    lacking = made_row(random.Random(1), "a", 5000)
    put(lake, "samples", [sample("a", lacking["sample_id"], ["q1", "q2"])])
    run = run_mix(each=100, tokens_by=["x", "y"])
    assert run.rejected["unscored"] == 1
    score = {"sample_id": lacking["sample_id"], "scorer": LENGTHS[0], "value": 1.0}
    put(lake, "scores", [score | {"turn": turn} for turn in (0, 1)])
    assert run_mix(each=100, tokens_by=["x", "y"]).rejected["unscored"] == 1
    with pytest.raises(RunError, match=r"no row fits into the mixture mix-n1.*ask for more"):
        run_mix(strategy="sizes", sizes=[1, 900], tokens_by=["x", "y"], parts={"d": ["d"]}, seed=4)


def test_mix_caps_subtasks_and_not_rows_without_one(run_mix, lake, rows):
    run = run_mix(each=18, subtask="template", cap=6, parts={"a": ["a"], "c": ["c"]})
    parts = of_parts(rows, {"a": ["a"], "c": ["c"]})
    kept = mixing.capped(parts, 6, 0)
    expect(lake, kept, mix={"a": 18, "c": 18})
    over = Counter(row["subtask"] for row in parts if row["subtask"])
    assert run.rejected["over_cap"] == sum(max(n - 6, 0) for n in over.values()) > 0
    subtasks = {row["sample_id"]: row["subtask"] for row in rows if row["pool"] == "c"}
    assert (
        max(Counter(subtasks[key] for p, _, key, _ in mixture_of(lake) if p == "c").values()) == 6
    )
    with pytest.raises(RunError, match=r"mix.subtask=task: no row has this key"):
        run_mix(each=1, subtask="task")


def test_mix_after_a_cap_does_not_favour_large_subtasks(lake, engines):
    """Capped at 40, one subtask of 1,000 rows and ten of 40 are alike."""
    fresh = Lake(f"{lake.root}2")
    ids = random.Random(3)
    keys = [(f"s{ids.getrandbits(60):x}", "large" if n < 1000 else f"t{n % 10}")
            for n in range(1400)]  # fmt: skip
    put(fresh, "samples", [sample("p", key, meta={"task": task}) for key, task in keys])
    config = mix_config({"each": 110, "subtask": "task", "cap": 40})
    recorded(fresh, engines, "mix", "r", mix, config, ["p"])
    tasks = dict(keys)
    found = Counter(tasks[key] for _, _, key, _ in mixture_of(fresh))
    # A quarter of 440: 10 of each expected, with a standard deviation of 2.6.
    assert len(found) == 11
    assert all(2 <= n <= 18 for n in found.values())


def test_mix_over_ask_error_writes_nothing(run_mix, lake):
    with pytest.raises(RunError, match=r"mix.counts.d=20: 20 rows .* part d, which has 9; ask .*"):
        run_mix(strategy="counts", counts={"a": 3, "d": 20})
    assert lake.version("mixtures") is None
    assert rows_of(lake, "runs")[0]["status"] == "failed"


def test_mix_over_ask_cap_takes_what_there_is(run_mix, lake, rows):
    run = run_mix(each=100, over_ask="cap", parts={"a": ["a"], "d": ["d"]})
    kept = of_parts(rows, {"a": ["a"], "d": ["d"]})
    there = Counter(row["part"] for row in kept)
    expect(lake, kept, mix={"a": 100, "d": there["d"]})
    assert run.metrics["shortfall"] == 100 - there["d"]


def test_mix_over_ask_replace_marks_copies_and_repeats_all_alike(run_mix, lake, rows):
    parts = {"a": ["a"], "d": ["d"]}
    run = run_mix(each=64, over_ask="replace", parts=parts)
    kept = of_parts(rows, parts)
    assert mixture_of(lake) == mixing.mixture(kept, {"a": 64, "d": 64}, replace=True)
    there = sum(row["part"] == "d" for row in kept)
    uses = Counter(key for part, _, key, _ in mixture_of(lake) if part == "d")
    assert len(uses) == there
    assert set(uses.values()) == {64 // there, -(-64 // there)}
    for key, count in uses.items():
        copies = [copy for part, _, k, copy in mixture_of(lake) if (part, k) == ("d", key)]
        assert copies == list(range(count))
    assert (run.kept, run.metrics["rows"]) == (64 + there, 128)
    tokens = {"tokens_by": ["x", "y"], "over_ask": "replace", "parts": {"d": ["d"]}}
    run_mix(each=3_000, **tokens)
    weighed = [row | {"tokens": sum(map(sum, row["counts"]))} for row in kept]
    assert mixture_of(lake) == mixing.mixture(weighed, {"d": 3_000}, replace=True)


@pytest.mark.parametrize("partitions", [1, pytest.param(4, marks=pytest.mark.soak), 32])
def test_mix_does_not_depend_on_partitions(run_mix, lake, rows, spark, partitions, monkeypatch):
    settings = {"spark.sql.shuffle.partitions": partitions, "spark.sql.adaptive.enabled": "false"}
    before = {name: spark.conf.get(name) for name in settings}
    read = Lake.read
    spread = lambda *args: read(*args).repartition(partitions)  # noqa: E731
    monkeypatch.setattr(Lake, "read", spread)
    try:
        for name, value in settings.items():
            spark.conf.set(name, value)
        run_mix(each=33, over_ask="replace", subtask="template", cap=7)
    finally:
        for name, value in before.items():
            spark.conf.set(name, value)
    kept = mixing.capped(of_parts(rows), 7, 0)
    assert mixture_of(lake) == mixing.mixture(kept, dict.fromkeys(POOLS, 33), replace=True)


def test_mix_stays_the_same_in_other_pools_when_one_grows(run_mix, lake, rows):
    run_mix(each=9)
    before = mixture_of(lake)
    rng = random.Random(99)
    new = [made_row(rng, "b", 2000 + n) for n in range(60)]
    fill(lake, new)
    run_mix(each=9)
    after = mixture_of(lake)
    assert after == mixing.mixture(of_parts(rows + new), dict.fromkeys(POOLS, 9))
    grown = {key for part, _, key, _ in after if part == "b"}
    kept = {key for part, _, key, _ in before if part == "b"} & grown
    assert grown - kept <= {row["sample_id"] for row in new}
    assert grown != kept
    others = [[told for told in m if told[0] != "b"] for m in (before, after)]
    assert others[0] == others[1]
    places = [[n for n, told in enumerate(m) if told[0] != "b"] for m in (before, after)]
    assert places[0] == places[1]


def test_mix_of_a_selection_takes_its_rows_alone(run_mix, lake, rows):
    chosen = {"selection": "mine", "rank": 0, "reason": "score", "run_id": "by hand"}
    mine = [row for row in rows if row["pool"] in "ab"][::3]
    put(lake, "selections", [chosen | {k: row[k] for k in ("pool", "sample_id")} for row in mine])
    put(lake, "selections", [chosen | {"selection": "no", "pool": "a", "sample_id": "gone"}])
    run = run_mix(each=20, selection="mine", parts={"a": ["a"], "b": ["b"]}, dedupe="none")
    expect(lake, [row | {"part": row["pool"]} for row in mine], mix={"a": 20, "b": 20})
    outside = sum(row["pool"] in "ab" for row in rows) - len(mine)
    assert run.rejected["not_in_selection"] == outside
    with pytest.raises(RunError, match=r"mix.selection=gone: .* no such selection; run the step"):
        run_mix(each=1, selection="gone")


def test_mix_leaves_a_conversation_to_no_pool_that_is_not_mixed(run_mix, lake, rows):
    run = run_mix(each=40, parts={"b": ["b"]})
    mine = [row | {"part": "b"} for row in rows if row["pool"] == "b"]
    assert len(mine) > len([row for row in of_parts(rows) if row["pool"] == "b"])
    expect(lake, mine, mix={"b": 40})
    assert "other_pool" not in run.rejected


def test_mix_leaves_out_what_a_screening_found_and_the_pool_that_has_it_too_gets_nothing(
    run_mix, lake, rows
):
    first, second = [row["sample_id"] for row in rows if row["pool"] == "a"][:2]
    found = {"screening": "mine", "run_id": "by hand"}
    twins = [found | {"sample_id": first, "kept": "x", "similarity": 0.9}]
    other = {"screening": "other", "sample_id": rows[5]["sample_id"], "kept": "x", "run_id": "r"}
    put(lake, "near_duplicates", [*twins, other])
    question = {"test_set": "t", "question": 1, "how": "ngrams", "overlap": 1.0}
    put(lake, "contaminations", [found | question | {"sample_id": second}])
    run = run_mix(each=40, screening="mine", parts={"a": ["a"], "b": ["b"]})
    clean = [row for row in rows if row["sample_id"] not in (first, second)]
    expect(lake, of_parts(clean, {"a": ["a"], "b": ["b"]}), mix={"a": 40, "b": 40})
    mine = [row for row in rows if row["pool"] in "ab"]
    assert run.rejected["near_duplicate_text"] == sum(r["sample_id"] == first for r in mine) == 2
    assert run.rejected["contaminated"] == sum(r["sample_id"] == second for r in mine)
