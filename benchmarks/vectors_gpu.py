"""The repr filter, k-center and near tags on a GPU, as shares of what the GPU can do.

    python benchmarks/vectors_gpu.py

Needs a GPU with 40 GB, 64 GB of memory, and of tagsieve's packages only numpy, scipy and torch.
Vectors of 4,096 dimensions in 9,500 bunches whose centres are alike to very different degrees.

repr_filter: 1M rows, of which some 9,500 are taken, block by block from GPU memory; the
limit is the time that the products of all rows with the rows taken before them take at the rate of
one large product of the same precision. Ids equal to the CPU's on a part. kcenter: 1M rows, float32
in host memory, float16 on the GPU; the limit of the loop is reading all rows once a centre at the
rate of a copy; beside it that loop itself, in float16 without any care for exactness. Ids equal to
the CPU's on a part. dbscan: 200,000 vectors of 384 dimensions, all pairs within eps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import common
from tagsieve.engines import vectors as engine
from tagsieve.ontology.dbscan import RangeSearch
from tagsieve.selection.kcenter import Shard, k_center
from tagsieve.selection.repr_filter import ReprFilter

DIMENSION = 4096
BUNCHES = 9_500
TAU, SIZE = 0.9, 10_000
CENTRES = 300
PART = 40_000
"""Rows on which the CPU's ids are compared."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cpu", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpu:
        cpu_part(options.cpu)
        return
    rows = options.rows
    limits = {"tflops": product_rate(), "copy_tb_per_second": copy_rate()}
    print(limits, flush=True)
    with tempfile.TemporaryDirectory(prefix="vectors-") as folder:
        expected = on_cpu(Path(folder))
    figures: dict[str, Any] = {
        "rows": rows,
        "dimension": DIMENSION,
        "limits": limits,
        "equal_rows": PART,
    }
    readme = []
    for name, benchmark in (("repr_filter", filtered), ("kcenter", centred), ("dbscan", near)):
        figures[name], told = benchmark(rows, limits, expected.get(name, []))
        print(name, figures[name], flush=True)
        readme.append(told)
    common.write("vectors_gpu", figures | {"readme": readme})


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    wait()
    started = time.perf_counter()
    result = function()
    wait()
    return time.perf_counter() - started, result


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def product_rate() -> float:
    """TFLOP/s of a bfloat16 product of two 8192 x 8192 matrices of random numbers."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds, _ = timed(lambda: [a @ b for _ in range(10)])
    return round(10 * 2 * 8192**3 / seconds / 1e12, 1)


def copy_rate() -> float:
    """TB/s of a copy on the GPU, bytes read and written."""
    a = torch.empty(4 * 2**30, device="cuda", dtype=torch.uint8)
    b = torch.empty_like(a)
    b.copy_(a)
    seconds, _ = timed(lambda: [b.copy_(a) for _ in range(10)])
    return round(10 * 2 * len(a) / seconds / 1e12, 2)


def made(rows: int, block: int = 131_072) -> Iterator[torch.Tensor]:
    """Rows in bunches, float32 on the GPU, block by block; the same whatever `rows`."""
    random = torch.Generator("cuda").manual_seed(7)
    spread = 1 / torch.arange(1, DIMENSION + 1, device="cuda").sqrt()
    centres = torch.randn(BUNCHES, DIMENSION, device="cuda", generator=random) * spread
    centres = torch.nn.functional.normalize(centres, dim=1)
    for start in range(0, rows, block):
        which = torch.randint(BUNCHES, (block,), device="cuda", generator=random)
        noise = torch.randn(block, DIMENSION, device="cuda", generator=random)
        noise *= torch.rand(block, 1, device="cuda", generator=random) * 0.33 / DIMENSION**0.5
        yield noise.add_(centres[which])[: rows - start]


def filtered(
    rows: int, limits: dict[str, float], expected: list[int]
) -> tuple[dict[str, Any], tuple[str, str]]:
    assert repr_filter(ReprFilter(TAU, SIZE), made(PART))[0] == expected
    ids, seconds, flops = repr_filter(ReprFilter(TAU, SIZE), made(rows))
    share = flops / limits["tflops"] / 1e12 / seconds
    hosted = [block.cpu().numpy() for block in made(200_000)]
    _, from_host, _ = repr_filter(ReprFilter(TAU, SIZE), hosted)
    told = f"{seconds:.2f} s, {share:.0%} of the matrix-product limit; {len(ids):,} taken"
    figures = {
        "taken": len(ids),
        "seconds": round(seconds, 3),
        "tflop": round(flops / 1e12, 1),
        "share": round(share, 3),
        "host_200k_seconds": round(from_host, 3),
    }
    return figures, (f"repr filter, {rows:,} x {DIMENSION:,} on a GPU", told)


def repr_filter(made: ReprFilter, blocks: Any) -> tuple[list[int], float, float]:
    """Ids, seconds, and operations of the products of rows with those taken before them."""
    ids: list[int] = []
    start, seconds, flops = 0, 0.0, 0.0
    for block in blocks:
        before = made.taken.count
        took, found = timed(lambda block=block: made.decide(block))
        seconds += took
        ids += (start + found).tolist()
        start += len(block)
        flops += 2 * DIMENSION * len(block) * (before + made.taken.count) / 2
    return ids, seconds, flops


def on_cpu(folder: Path) -> dict[str, list[int]]:
    """The ids that the CPU finds among the first rows, by a process that sees no GPU."""
    np.save(folder / "rows.npy", torch.cat(list(made(PART))).cpu().numpy())
    command = [sys.executable, __file__, "--cpu", str(folder)]
    subprocess.run(command, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    found: dict[str, list[int]] = json.loads((folder / "ids.json").read_text())
    return found


def cpu_part(folder: Path) -> None:
    assert engine.device() == "cpu"
    rows = np.load(folder / "rows.npy")
    ids = {
        "repr_filter": repr_filter(ReprFilter(TAU, SIZE), [rows])[0],
        "kcenter": centres_of(Shard(rows), rows, CENTRES)[0],
    }
    (folder / "ids.json").write_text(json.dumps(ids))


def centred(
    rows: int, limits: dict[str, float], expected: list[int]
) -> tuple[dict[str, Any], tuple[str, str]]:
    host = torch.empty(rows, DIMENSION)
    start = 0
    for block in made(rows):
        host[start : start + len(block)] = block
        start += len(block)
    hosted = host.numpy()
    assert centres_of(Shard(hosted[:PART]), hosted, CENTRES)[0] == expected
    loading, shard = timed(lambda: Shard(hosted))
    found: dict[str, Any] = {"load_seconds": round(loading, 2)}
    for size in (1_000, 10_000):
        shard = Shard(hosted)
        seconds, (_, passes) = timed(lambda shard=shard, size=size: centres_of(shard, hosted, size))
        limit = size * rows * DIMENSION * 2 / limits["copy_tb_per_second"] / 1e12
        found[f"{size}"] = {
            "seconds": round(seconds, 2), "passes": passes, "loop_limit_seconds": round(limit, 2),
            "share": round(limit / seconds, 2),
        }  # fmt: skip
    del shard
    found["loop_1000_seconds"] = round(loop(host.cuda().half(), 1_000), 2)
    one = found["1000"]
    told = (
        f"{one['seconds']} s in {one['passes']} passes; reading all rows once a centre takes "
        f"{one['loop_limit_seconds']} s at the full memory bandwidth, and the loop itself in "
        f"float16 {found['loop_1000_seconds']} s"
    )
    return found, (f"k-center, {rows:,} x {DIMENSION:,}, k = 1,000, on a GPU", told)


def centres_of(shard: Shard, vectors: np.ndarray, size: int) -> tuple[list[int], int]:
    passes = list(k_center(lambda *told: [shard.advance(*told)], 0, vectors[0], size))
    return [number for found in passes for number, _ in found], len(passes)


def loop(units: torch.Tensor, size: int) -> float:
    """Seconds of the loop that reads all rows once a centre."""

    def run() -> None:
        squares = torch.cat([(part.float() ** 2).sum(dim=1) for part in units.split(100_000)])
        near, row = torch.full_like(squares, torch.inf), torch.zeros((), dtype=torch.int64).cuda()
        for _ in range(size):
            far = squares + squares[row] - 2 * (units @ units[row]).float()
            near = torch.minimum(near, far)
            row = near.argmax()

    return timed(run)[0]


def near(
    _rows: int, _limits: dict[str, float], _expected: list[int]
) -> tuple[dict[str, Any], tuple[str, str]]:
    random = np.random.default_rng(3)
    centres = random.normal(size=(60_000, 384))
    tags = centres[random.integers(len(centres), size=200_000)]
    tags = (tags + 0.25 * random.normal(size=tags.shape)).astype(np.float32)

    def run() -> int:
        search = RangeSearch(tags, 0.05, 16_384)
        return sum(len(search.pairs_of(block)[0]) for block in range(search.blocks))

    run()
    seconds, pairs = timed(run)
    row = ("near pairs of 200,000 tags on a GPU", f"{seconds:.1f} s, {pairs:,} pairs")
    return {"seconds": round(seconds, 2), "pairs": pairs}, row


if __name__ == "__main__":
    main()
