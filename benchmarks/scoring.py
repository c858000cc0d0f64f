"""The score step against the loop that peers ship: one row at a time.

    python benchmarks/scoring.py             # all of Alpaca: about 8 minutes
    python benchmarks/scoring.py --rows 300 --loop-rows 100    # for correctness only

Rows per second of the whole step (Delta to committed Delta, Spark's anti-join among it), start-up
left out, by a tiny random Llama in float32 on all cores, and of its actors alone, from their first
results on; beside it a plain loop over a part of the same rows with the same model and cores, which
does for each row what released code does: tokenise, one pass for each text with the logits of every
position, pick what is needed; for DEITA `generate`, which with the released scorers is two tokens,
the digit and the end. First checked: the step's scores are those of the loop, within a relative
1e-4.

The model is tiny so that what surrounds it shows. Its tokenizer learns from the rows themselves, so
that a text has about as many tokens as with a tokenizer in use. `--hidden`, `--vocabulary` make the
model larger: then both spend their time in the same products, and the ratio falls.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT / "tests"))

ROWS, LOOP_ROWS = 60_000, 1_000
WARM = 100
KINDS = {
    "IFD": [{"kind": "ifd", "name": "ifd"}],
    "DEITA": [
        {"kind": "deita", "name": "complexity", "what": "complexity"},
        {"kind": "deita", "name": "quality", "what": "quality"},
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--loop-rows", type=int, default=LOOP_ROWS)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--child", nargs=3, metavar=("NAME", "KIND", "FOLDER"))
    options = parser.parse_args()
    if options.child:
        name, kind, folder = options.child
        rows = [tuple(row) for row in read(Path(folder) / "rows.json")]
        found = CHILDREN[name](Path(folder), kind, rows)
        scores = Path(folder) / f"{kind}-{name}.json"
        scores.write_text(json.dumps(found.pop("scores")), encoding="utf-8")
        print("RESULT " + json.dumps(found), flush=True)
        # Not by the interpreter's own end, as in tagsieve.cli: Arrow may still hold buffers.
        os._exit(0)
    folder = Path(tempfile.mkdtemp(prefix="scoring-"))
    try:
        figures = measured(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    common.write("scoring", figures)


def measured(folder: Path, options: Any) -> dict[str, Any]:
    from tiny_llama import make_tiny_llama

    rows = alpaca_rows(options.rows)
    make_tiny_llama(
        folder / "model",
        hidden=options.hidden,
        vocabulary=options.vocabulary,
        texts=[text for row in rows for text in row],
    )
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    figures: dict[str, Any] = {
        "rows": len(rows),
        "loop_rows": options.loop_rows,
        "hidden": options.hidden,
        "vocabulary": options.vocabulary,
    }
    readme = []
    for kind in KINDS:
        loop = child("loop", kind, folder, str(options.loop_rows))
        step = child("step", kind, folder)
        check_equal(kind, *(read(folder / f"{kind}-{name}.json") for name in ("loop", "step")))
        whole, actors = (
            step[name] / loop["rows_per_second"]
            for name in ("rows_per_second", "rows_per_second_of_the_actors")
        )
        figures[kind] = {"step": step, "loop": loop, "whole": whole, "actors": actors}
        print(f"{kind}: {whole:.1f} times the loop, the actors {actors:.1f} times", flush=True)
        readme.append(
            (
                f"{kind} scores against the row-at-a-time loop, tiny model, {len(rows):,} rows",
                f"{step['rows_per_second']:,.0f} of {loop['rows_per_second']:,.0f} rows/s "
                f"({whole:.1f} times; the actors alone {actors:.1f} times)",
            )
        )
    return {**figures, "readme": readme}


def child(name: str, kind: str, folder: Path, *rest: str) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    options = ["--loop-rows", *rest] if rest else []
    result = common.child(__file__, *options, "--child", name, kind, str(folder))
    print(f"  {kind}, {name}: {result}", flush=True)
    return result


def check_equal(kind: str, loop: dict[str, float], step: dict[str, float]) -> None:
    off = [key for key, value in loop.items() if abs(step[key] / value - 1) > 1e-4]
    if off:
        sys.exit(f"{kind}: {len(off)} of {len(loop)} scores differ from the loop's: {off[:3]}")


def alpaca_rows(number: int) -> list[tuple[str, str]]:
    """The first distinct rows of Alpaca with an output."""
    rows: dict[tuple[str, str], None] = {}
    with gzip.open(common.DATA / "pools" / "alpaca.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["output"].strip():
                rows[f"{row['instruction']}\n{row['input']}".strip(), row["output"]] = None
            if len(rows) == number:
                break
    return list(rows)


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def key(instruction: str, response: str, name: str) -> str:
    from tagsieve import records

    return f"{records.sample_id([('user', instruction), ('assistant', response)])} {name}"


# --- the step -------------------------------------------------------------------------------------


def timed_step(folder: Path, kind: str, rows: list[tuple[str, str]]) -> dict[str, Any]:
    from scored import add_pairs
    from tagsieve.console import Console
    from tagsieve.engines.config import RayConfig, SparkConfig
    from tagsieve.engines.context import Context, Engines
    from tagsieve.lake import Lake
    from tagsieve.ledger import StepRun, new_run_id
    from tagsieve.scoring import ScoreConfig, score, scorer_fingerprints

    lake = Lake(str(folder / f"lake-{kind}"))
    add_pairs(lake, rows)
    model = {"model": str(folder / "model"), "dtype": "float32"}
    config = ScoreConfig.model_validate(
        {"scorers": [{**s, **model} for s in KINDS[kind]], "replicas": os.cpu_count()}
    )
    engines = Engines(SparkConfig(driver_memory="2g"), RayConfig())
    try:
        engines.spark.range(1).count()
        engines.ray()
        run = StepRun(lake, new_run_id(), "score")
        started = time.monotonic()
        score(Context(lake, engines, run, Console(quiet=True)), config)
        waited = sum(v for k, v in run.metrics.items() if k.startswith("start_seconds"))
        spent = time.monotonic() - started - waited
        run.check()
    finally:
        engines.close()
    names = {value: name for name, value in scorer_fingerprints(config).items()}
    found = lake.arrow("scores").to_pylist()
    return {
        "seconds": round(spent, 2),
        "rows_per_second": round(len(rows) / spent, 2),
        "rows_per_second_of_the_actors": run.metrics["rows_per_second"] / len(KINDS[kind]),
        "model_calls": run.metrics["model_calls"],
        "tokens": run.metrics["tokens"],
        "scores": {f"{row['sample_id']} {names[row['scorer']]}": row["value"] for row in found},
    }


# --- the loop -------------------------------------------------------------------------------------


def timed_loop(folder: Path, kind: str, rows: list[tuple[str, str]]) -> dict[str, Any]:
    from parity.losses import Reference

    reference = Reference(str(folder / "model"))
    some = rows[: int(sys.argv[sys.argv.index("--loop-rows") + 1])]
    for _, response in some[:WARM]:
        reference.loss(response)
    scores = {}
    started = time.monotonic()
    for instruction, response in some:
        if kind == "IFD":
            before = f"{instruction}\n\n### Response:"
            scores[key(instruction, response, "ifd")] = reference.ifd(response, before)
        else:
            for what in ("complexity", "quality"):
                value = generated_deita(reference, what, instruction, response)
                scores[key(instruction, response, what)] = value
    spent = time.monotonic() - started
    return {
        "seconds": round(spent, 2),
        "rows_per_second": round(len(some) / spent, 2),
        "scores": scores,
    }


def generated_deita(reference: Any, what: str, instruction: str, response: str) -> float:
    """The expected digit, from the scores of the first token that is generated."""
    import torch

    from parity.losses import DEITA

    text = DEITA[what].replace("{instruction}", instruction).replace("{output}", response)
    tokenizer = reference.tokenizer
    done = reference.model.generate(
        **tokenizer(text, return_tensors="pt"),
        max_new_tokens=2,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    digits = [tokenizer.convert_tokens_to_ids(digit) for digit in "123456"]
    odds = torch.softmax(done.scores[0][0, digits].double(), 0)
    return sum(n * share for n, share in enumerate(odds.tolist(), 1))


CHILDREN = {"step": timed_step, "loop": timed_loop}


if __name__ == "__main__":
    main()
