"""Selection by vectors: the repr filter and k-center against plain loops, and at a million rows.

    python benchmarks/vectors.py alpaca    # embeds Alpaca once into lakes/alpaca: 10 minutes
    python benchmarks/vectors.py loops     # needs the vectors of alpaca
    python benchmarks/vectors.py million   # 1M x 384, the whole step

alpaca: 52,002 conversations through ingest, embed (MiniLM), score (length of the response in NLTK
words) and the selections longest, repr_filter and kcenter; the longest rows are asserted equal to
plain Python's. loops: on those vectors, in the order of response length. The repr filter against
the procedure of DEITA's released code, which gathers all taken rows anew for each candidate (6,000
rows), and against a loop that keeps a matrix of unit vectors and takes one product a row (6,000 and
all rows); k-center against a loop that takes one product a centre, in float64, and one that
subtracts, in float32. The rows are asserted equal first. million: vectors in bunches, 10,000 of
them to be taken, from Delta tables to a selection; time, and the most memory of all processes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import common

LAKE = common.ROOT / "lakes" / "alpaca"
PAPER_ROWS = 6_000
TAU = 0.9
CENTRES = 1_000
MILLION, TAKEN, DIMENSION = 1_000_000, 10_000, 384


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--rows", type=int, default=MILLION, help="of million")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print("RESULT " + json.dumps(million_child(options.child, options.rows)))
        return
    for what in options.what:
        common.write(f"vectors_{what}", BENCHMARKS[what](options.rows))


# --- alpaca -------------------------------------------------------------------------------------


def alpaca(_rows: int) -> dict[str, Any]:
    """The steps as a user runs them, from nothing; the lake stays for `loops`."""
    from tagsieve.console import Console
    from tagsieve.engines.config import RayConfig, SparkConfig
    from tagsieve.engines.context import Engines
    from tagsieve.lake import Lake
    from tagsieve.recipe import Recipe
    from tagsieve.runner import run_steps

    shutil.rmtree(LAKE, ignore_errors=True)
    base = {
        "lake": str(LAKE),
        "inputs": [{"path": str(common.DATA / "pools" / "alpaca.jsonl.gz"), "pool": "alpaca"}],
        "steps": ["ingest", "embed", "score", "select"],
        "score": {"scorers": [{"kind": "length", "name": "words", "tokenizer": "nltk"}]},
    }
    selections = {
        "longest": {"strategy": "top_score", "score": "words", "size": 1_000},
        "repr_filter": {"strategy": "repr_filter", "score": "words", "size": 52_002, "tau": TAU},
        "kcenter": {"strategy": "kcenter", "size": CENTRES},
    }
    lake, engines = Lake(str(LAKE)), Engines(SparkConfig(), RayConfig())
    try:
        for name, select in selections.items():
            recipe = Recipe.model_validate(base | {"select": {"name": name} | select})
            run_steps(recipe, recipe.steps, Console(), engines)
    finally:
        engines.close()
    longest = lake.arrow("selections", filters=[("selection", "=", "longest")]).sort_by("rank")
    assert longest["sample_id"].to_pylist() == longest_by_hand(lake, 1_000)
    steps = [
        row | {"metrics": dict(row["metrics"])}
        for row in lake.arrow("runs").sort_by("started").to_pylist()
        if row["status"] == "done"
    ]
    done = {}
    for row in steps:
        if "from_earlier_run" in row["metrics"]:
            continue
        name = row["step"]
        if name == "select":
            name = json.loads(row["recipe"])["select"]["name"]
        done[name] = {key: row[key] for key in ("input", "kept")} | {
            key: row["metrics"][key] for key in ("seconds", "peak_memory_mb")
        }
    shown = ("embed", "longest", "repr_filter", "kcenter")
    told = "; ".join(f"{n} {done[n]['seconds']:.0f} s ({done[n]['kept']:,} rows)" for n in shown)
    return {"steps": done, "readme": [("Alpaca's 52,002 rows, MiniLM, steps as run", told)]}


def longest_by_hand(lake: Any, size: int) -> list[str]:
    """Sample ids by the number of NLTK words of the responses, most first, then by id."""
    from nltk.tokenize import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    words = {
        row["sample_id"]: sum(
            len(tokenizer.tokenize(turn["content"]))
            for turn in row["turns"]
            if turn["role"] == "assistant"
        )
        for row in lake.arrow("samples", ["sample_id", "turns"]).to_pylist()
    }
    return sorted(words, key=lambda key: (-words[key], key))[:size]


# --- loops --------------------------------------------------------------------------------------


def loops(_rows: int) -> dict[str, Any]:
    """Each reference once, ours the best of three."""
    vectors = alpaca_vectors()
    few = vectors[:PAPER_ROWS]
    released_seconds, expected = timed(lambda: released_filter(few, TAU))
    paper_seconds, taken = timed(lambda: one_product_a_row(few, TAU))
    ours_paper, found = best(lambda: filtered(few, TAU))
    assert found == expected == taken
    all_seconds, taken = timed(lambda: one_product_a_row(vectors, TAU))
    ours_all, found = best(lambda: filtered(vectors, TAU))
    assert found == taken
    product_seconds, expected = timed(lambda: one_product_a_centre(vectors, CENTRES))
    subtract_seconds, _ = timed(lambda: subtracting(vectors, CENTRES))
    ours_centres, found = best(lambda: centred(vectors, CENTRES))
    assert found == expected
    figures = {
        "rows": len(vectors),
        "repr_filter_6000": {
            "taken": len(filtered(few, TAU)),
            "ours": ours_paper,
            "released_procedure": released_seconds,
            "one_product_a_row": paper_seconds,
        },
        "repr_filter_all": {
            "taken": len(taken),
            "ours": ours_all,
            "one_product_a_row": all_seconds,
        },
        "kcenter": {
            "ours": ours_centres,
            "one_product_a_centre_float64": product_seconds,
            "subtracting_float32": subtract_seconds,
        },
    }
    rows = [
        (
            f"repr filter, {PAPER_ROWS:,} x 384: ours; released procedure; NumPy loop",
            f"{ours_paper:.3f} s; {released_seconds / ours_paper:,.0f}x; "
            f"{paper_seconds / ours_paper:,.0f}x as long",
        ),
        (
            f"repr filter, {len(vectors):,} x 384: ours; NumPy loop",
            f"{ours_all:.2f} s; {all_seconds / ours_all:,.0f}x as long",
        ),
        (
            f"k-center, {len(vectors):,} x 384, k = {CENTRES:,}: ours; NumPy loops by a float64 "
            "product and by float32 differences",
            f"{ours_centres:.2f} s; {product_seconds / ours_centres:,.0f}x; "
            f"{subtract_seconds / ours_centres:,.0f}x as long",
        ),
    ]
    return {**figures, "readme": rows}


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function()
    return round(time.perf_counter() - started, 4), result


def best(function: Callable[[], Any]) -> tuple[float, Any]:
    runs = [timed(function) for _ in range(3)]
    return min(seconds for seconds, _ in runs), runs[0][1]


def alpaca_vectors() -> np.ndarray:
    """Alpaca's vectors, longest response first."""
    from tagsieve.lake import Lake

    lake = Lake(str(LAKE))
    if lake.version("embeddings") is None:
        raise SystemExit("first: python benchmarks/vectors.py alpaca")
    order = lake.arrow("scores", ["sample_id", "value"]).sort_by(
        [("value", "descending"), ("sample_id", "ascending")]
    )
    table = order.join(lake.arrow("embeddings", ["sample_id"]), "sample_id", join_type="inner")
    assert table.num_rows == order.num_rows
    held = lake.arrow("embeddings", ["sample_id", "vector"])
    place = {key: n for n, key in enumerate(held["sample_id"].to_pylist())}
    matrix = held["vector"].combine_chunks().flatten().to_numpy().reshape(held.num_rows, -1)
    return np.ascontiguousarray(matrix[[place[key] for key in order["sample_id"].to_pylist()]])


def filtered(vectors: np.ndarray, tau: float, block: int = 8192) -> list[int]:
    from tagsieve.selection.repr_filter import ReprFilter

    made, taken = ReprFilter(tau, len(vectors)), []
    for start in range(0, len(vectors), block):
        taken += (start + made.decide(vectors[start : start + block])).tolist()
    return taken


def released_filter(vectors: np.ndarray, tau: float) -> list[int]:
    """For each candidate all taken rows are gathered anew, scaled and compared."""
    taken = [0]
    for row in range(1, len(vectors)):
        there = vectors[taken]
        there = there / np.linalg.norm(there, axis=1, keepdims=True)
        one = vectors[row] / np.linalg.norm(vectors[row])
        if (there @ one).max() <= tau:
            taken.append(row)
    return taken


def one_product_a_row(vectors: np.ndarray, tau: float) -> list[int]:
    """A matrix of the unit vectors of the taken rows, grown in place, and one product a row."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    held, taken = np.empty_like(units), []
    for row, unit in enumerate(units):
        if not taken or (held[: len(taken)] @ unit).max() <= tau:
            held[len(taken)] = unit
            taken.append(row)
    return taken


def centred(vectors: np.ndarray, size: int) -> list[int]:
    from tagsieve.selection.kcenter import Shard, k_center

    shard = Shard(vectors)
    passes = k_center(lambda *told: [shard.advance(*told)], 0, vectors[0], size)
    return [number for found in passes for number, _ in found]


def one_product_a_centre(vectors: np.ndarray, size: int) -> list[int]:
    wide = vectors.astype(np.float64)
    squares = (wide * wide).sum(axis=1)
    near, taken = np.full(len(wide), np.inf), [0]
    while len(taken) < size:
        last = taken[-1]
        near = np.minimum(near, squares + squares[last] - 2 * (wide @ wide[last]))
        near[last] = -np.inf
        taken.append(int(near.argmax()))
    return taken


def subtracting(vectors: np.ndarray, size: int) -> list[int]:
    near, taken = np.full(len(vectors), np.inf, dtype=np.float32), [0]
    while len(taken) < size:
        near = np.minimum(near, ((vectors - vectors[taken[-1]]) ** 2).sum(axis=1))
        taken.append(int(near.argmax()))
    return taken


# --- million ------------------------------------------------------------------------------------


def million(rows: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="vectors-"))
    try:
        found = common.child(__file__, "million", "--child", str(folder), "--rows", str(rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    told = (
        f"{found['seconds']:.0f} s from tables to table, {found['strategy_seconds']:.0f} s of it "
        f"the filter; {found['taken']:,} taken; at most {found['peak_gb']:.1f} GB"
    )
    return {**found, "readme": [(f"repr filter, {rows:,} x {DIMENSION}, the whole step", told)]}


def million_child(folder: Path, rows: int) -> dict[str, Any]:
    import pyarrow as pa

    from tagsieve.console import Console
    from tagsieve.engines.config import RayConfig, SparkConfig
    from tagsieve.engines.context import Context, Engines
    from tagsieve.lake import TABLES, Lake
    from tagsieve.ledger import record_step
    from tagsieve.selection import Sources, select
    from tagsieve.selection.config import ReprFilterConfig

    lake, random = Lake(str(folder / "lake")), np.random.default_rng(0)
    bunches = random.normal(size=(TAKEN - 500, DIMENSION)).astype(np.float32)
    block = 50_000
    for number, start in enumerate(range(0, rows, block)):
        count = min(block, rows - start)
        noise = random.normal(size=(count, DIMENSION)).astype(np.float32)
        vectors = bunches[random.integers(len(bunches), size=count)]
        vectors = vectors + random.uniform(0.05, 0.3, (count, 1)).astype(np.float32) * noise
        ids = [f"{n * 2654435761 % 2**32:08x}-{n}" for n in range(start, start + count)]
        offsets = np.arange(0, vectors.size + 1, DIMENSION, dtype=np.int32)
        tables = {
            "samples": {"pool": ["p"] * count, "sample_id": ids, "query_ids": [["q"]] * count},
            "scores": {"sample_id": ids, "turn": [0] * count, "scorer": ["s"] * count,
                       "value": random.random(count)},
            "embeddings": {"sample_id": ids, "encoder": ["e"] * count,
                           "vector": pa.ListArray.from_arrays(offsets, vectors.ravel())},
        }  # fmt: skip
        for name, columns in tables.items():
            schema = TABLES[name].schema
            table = pa.table(
                [pa.array(columns[f.name], f.type) if f.name in columns
                 and not isinstance(columns[f.name], pa.Array)
                 else columns.get(f.name, pa.nulls(count, f.type)) for f in schema],
                names=schema.names,
            )  # fmt: skip
            lake.append_once(name, table, f"made {number}", 1)
    engines = Engines(SparkConfig(), RayConfig())
    config = ReprFilterConfig(score="s", tau=TAU, size=TAKEN)
    try:
        engines.spark.range(1).count()
        engines.ray()
        with record_step(lake, "r", "select", "{}") as run:
            select(
                Context(lake, engines, run, Console()), config, Sources(None, {"s": "s"}, "e"), []
            )
    finally:
        engines.close()
    return {
        "rows": rows,
        "taken": run.kept,
        "rejected": dict(run.rejected),
        "seconds": run.metrics["seconds"],
        "strategy_seconds": run.metrics["strategy_seconds"],
        "sort_seconds": run.metrics["sort_seconds"],
        "peak_gb": round(run.metrics["peak_memory_mb"] / 1024, 2),
    }


BENCHMARKS = {"alpaca": alpaca, "loops": loops, "million": million}


if __name__ == "__main__":
    main()
