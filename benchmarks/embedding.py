"""The embed step against sentence-transformers, over real instructions.

    python benchmarks/embedding.py        # 20,000 Alpaca instructions, 3 rounds: 15 minutes
    python benchmarks/embedding.py --rows 2000 --rounds 1

Each measurement is a process of its own; those of a round run one after the other, and ratios are
those of a round. All have the same threads and texts.

- step: Delta to committed Delta with real Spark and Ray, MiniLM in the precision that the CPU is
  best at. `steady` counts from the moment the model is loaded and its input is there to the last
  result; `whole` all of the step but the time in which the engine starts.
- best: sentence-transformers alone, sorted by length as it does, in bfloat16 where the CPU has it,
  with the fastest of four batch sizes on a sample.
- defaults: sentence-transformers as its documentation calls it, float32.

First checked: in float32 the step's vectors are those of the defaults within 1e-5, and in bfloat16
those of both references at a cosine of 0.999.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import common

sys.path.insert(0, str(common.ROOT / "tests"))

ROWS = 20_000
ROUNDS = 3
BATCHES = (32, 64, 128, 256)
TRIED = 1_500
"""Texts on which batch sizes are tried."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, folder = options.child
        print("RESULT " + json.dumps(CHILDREN[name](Path(folder))))
        return
    folder = Path(tempfile.mkdtemp(prefix="embedding-"))
    try:
        figures = compare(folder, options.rows, options.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    common.write("embedding", figures)


def compare(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """All measurements of all rounds, and the medians of their ratios."""
    from tagsieve.lake import Lake
    from talks import add_talks

    texts = common.alpaca_queries(rows)
    (folder / "texts.json").write_text(json.dumps(texts))
    add_talks(Lake(str(folder / "lake")), [[("user", t), ("assistant", "ok")] for t in texts])
    measured: dict[str, list[dict[str, Any]]] = {"step": [], "best": [], "defaults": []}
    differences = check(folder)
    for number in range(rounds):
        names = list(measured) if number % 2 == 0 else list(measured)[::-1]
        for name in names:
            measured[name].append(child(name, folder))
    steady = [row["steady_rows_per_second"] for row in measured["step"]]
    whole = [row["whole_rows_per_second"] for row in measured["step"]]
    bare = {name: [row["rows_per_second"] for row in measured[name]] for name in BARE}
    to_best = statistics.median(a / b for a, b in zip(steady, bare["best"], strict=True))
    to_defaults = statistics.median(a / b for a, b in zip(steady, bare["defaults"], strict=True))
    print(f"step / best {to_best:.2f}, step / defaults {to_defaults:.2f} (medians of {rounds})")
    middle = {name: statistics.median(rates) for name, rates in bare.items()}
    return {
        "rows": len(texts),
        "differences": differences,
        **measured,
        "step_to_best": round(to_best, 3),
        "step_to_defaults": round(to_defaults, 3),
        "readme": [
            (
                f"embed step, {len(texts):,} instructions, against sentence-transformers at its "
                "best settings / at its defaults",
                f"{statistics.median(steady):,.0f} of {middle['best']:,.0f} / "
                f"{middle['defaults']:,.0f} rows/s ({to_best:.0%} / {to_defaults:.1f}x); with "
                f"Spark's part {statistics.median(whole):,.0f} rows/s",
            )
        ],
    }


def check(folder: Path) -> dict[str, float]:
    """Assert that the vectors are equal; gives by how much they differ."""
    for name in ("step_float32", "step", "best", "defaults"):
        child(name, folder)
    found = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    exact = float(np.abs(found["step_float32"] - found["defaults"]).max())
    assert exact <= 1e-5, f"float32 vectors differ by {exact}"
    told = {"float32, largest difference": exact}
    for name in BARE:
        cosines = (found["step"] * found[name]).sum(1) / np.linalg.norm(found[name], axis=1)
        least = float(cosines.min())
        assert least >= 0.999, f"vectors differ from {name}: cosine {least}"
        told[f"{name}, least cosine"] = least
    print("vectors are equal: " + ", ".join(f"{k} {v:.6g}" for k, v in told.items()))
    return told


def child(name: str, folder: Path) -> dict[str, Any]:
    """One measurement in a process of its own."""
    result = common.child(__file__, "--child", name, str(folder))
    print(f"  {name}: " + ", ".join(f"{k} {v}" for k, v in result.items()), flush=True)
    return result


def step(folder: Path, dtype: str = "auto") -> dict[str, Any]:
    """The embed step; its vectors go to `step.npy`, in the order of the texts."""
    from tagsieve import records
    from tagsieve.console import Console
    from tagsieve.embedding import SentenceEmbedConfig, embed
    from tagsieve.engines.actors import ActorPool
    from tagsieve.engines.config import RayConfig, SparkConfig
    from tagsieve.engines.context import Context, Engines
    from tagsieve.lake import Lake
    from tagsieve.ledger import StepRun, new_run_id

    lake, seconds = Lake(str(folder / "lake")), []
    for made in ("embeddings", "quarantine"):
        shutil.rmtree(f"{lake.root}/{made}", ignore_errors=True)
    results = ActorPool.map

    def timed(pool: ActorPool, *arguments: Any) -> Any:
        yield from results(pool, *arguments)
        seconds.append(time.monotonic() - pool._began - pool.start_seconds)

    ActorPool.map = timed  # type: ignore[method-assign]
    engines = Engines(SparkConfig(driver_memory="2g"), RayConfig())
    try:
        engines.spark.range(1).count()
        engines.ray()
        run = StepRun(lake, new_run_id(), "embed")
        started = time.monotonic()
        embed(Context(lake, engines, run, Console(quiet=True)), SentenceEmbedConfig(dtype=dtype))
        elapsed = time.monotonic() - started
        lake.drop_work(run.run_id)
    finally:
        engines.close()
    run.check()
    texts = read_texts(folder)
    assert run.kept == len(texts), run
    table = lake.arrow("embeddings")
    place = {key: row for row, key in enumerate(table["sample_id"].to_pylist())}
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(texts), -1)
    ids = [records.sample_id([("user", text), ("assistant", "ok")]) for text in texts]
    name = "step_float32" if dtype == "float32" else "step"
    np.save(folder / f"{name}.npy", vectors[[place[key] for key in ids]])
    engine = run.metrics["engine_start_seconds"]
    return {
        "steady_rows_per_second": round(run.kept / seconds[0], 1),
        "whole_rows_per_second": round(run.kept / (elapsed - engine), 1),
        "engine_start_seconds": engine,
        "commits": run.metrics["commits"],
    }


def best(folder: Path) -> dict[str, Any]:
    """sentence-transformers in the CPU's best precision with the best of some batch sizes."""
    import torch
    from sentence_transformers import SentenceTransformer

    from tagsieve.engines.encoders import cpu_dtype, packaged_minilm

    dtype = getattr(torch, cpu_dtype())
    model = SentenceTransformer(packaged_minilm(), device="cpu", model_kwargs={"dtype": dtype})
    texts = read_texts(folder)
    tried = texts[:: max(len(texts) // TRIED, 1)]
    model.encode(tried[:200])
    # Each twice, in turns: a machine has moods.
    rates = {size: max(bare_rate(model, tried, size)[0] for _ in range(2)) for size in BATCHES}
    size = max(rates, key=rates.__getitem__)
    rate, vectors = bare_rate(model, texts, size)
    np.save(folder / "best.npy", vectors)
    return {"rows_per_second": rate, "batch_size": size, "dtype": cpu_dtype()}


def defaults(folder: Path) -> dict[str, Any]:
    """sentence-transformers as its documentation calls it."""
    from sentence_transformers import SentenceTransformer

    from tagsieve.engines.encoders import packaged_minilm

    model = SentenceTransformer(packaged_minilm(), device="cpu")
    texts = read_texts(folder)
    model.encode(texts[:200])
    rate, vectors = bare_rate(model, texts, 32)
    np.save(folder / "defaults.npy", vectors)
    return {"rows_per_second": rate}


def bare_rate(model: Any, texts: list[str], size: int) -> tuple[float, Any]:
    """Texts per second, and their vectors."""
    started = time.perf_counter()
    vectors = model.encode(texts, batch_size=size, show_progress_bar=False)
    rate = len(texts) / (time.perf_counter() - started)
    return round(rate, 1), np.asarray(vectors, dtype=np.float32)


def read_texts(folder: Path) -> list[str]:
    texts: list[str] = json.loads((folder / "texts.json").read_text())
    return texts


BARE = ("best", "defaults")
CHILDREN = {
    "step": step,
    "step_float32": lambda folder: step(folder, "float32"),
    "best": best,
    "defaults": defaults,
}


if __name__ == "__main__":
    main()
