"""The step screen over the seven real pools and all test sets: time, recall, false positives.

    python benchmarks/screening.py               # about 126,000 rows; ../shared/data must be there
    python benchmarks/screening.py --embedding   # the questions by vectors, too: minutes more

Near-duplicates and questions are looked for in the pools as they are: what is found is printed, so
that a person can tell a question from what only sounds like one. Then a pool is added with every
question as it is, with its case or punctuation changed, with one word replaced, left out or put
in, and inside a longer text; and with rows of the pools in which up to three words are replaced.
Recall of questions is by kind. Recall of near-duplicates is over the planted rows whose exact
Jaccard similarity, by a plain Python loop, is at least the threshold. First checked: the ledger
balances, and a twin that is named stays.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT / "tests"))

POOLS = ("alpaca", "p3", "code_alpaca", "gsm8k", "dolly_3k", "lima", "oasst_zh")
FIELDS: dict[str, str | list[str]] = {
    "ifeval": "prompt",
    "koala": "prompt",
    "lima": "conversations.0",
    "sinstruct": ["instruction", "instances.0.input"],
    "vicuna": "text",
    "wizardlm": "Instruction",
}
TWINS = 3_000
SHOWN = 110


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--embedding", action="store_true")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=["pools", "planted", "embedding"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        print("RESULT " + json.dumps(MEASURED[options.what](Path(options.folder))), flush=True)
        return
    folder = Path(tempfile.mkdtemp(prefix="screening-"))
    try:
        parts = ["pools", "planted", *(["embedding"] if options.embedding else [])]
        found = {}
        for what in parts:
            found[what] = common.child(__file__, "--folder", str(folder), "--what", what)
            # Of the pools' texts nothing is kept.
            print("\n".join([what, *found[what].pop("shown", [])]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    common.write("screening", {**found, "readme": readme(found)})


def readme(found: dict[str, Any]) -> list[tuple[str, str]]:
    pools, planted = found["pools"], found["planted"]
    rows = [
        (
            f"screen step, {pools['samples']:,} samples of seven pools, {pools['questions']:,} "
            "questions of six test sets",
            f"{pools['seconds']:.0f} s; "
            f"{pools['near_duplicates']:,} near-duplicates, {len(pools['found'])} questions "
            f"({pools['equal']} of them word for word)",
        ),
        ("planted questions that are found", told(planted["recall"])),
        (
            f"planted near-duplicates of similarity 0.8 and more that are found, of "
            f"{planted['twins']:,}",
            f"{planted['twin_recall']:.2%}",
        ),
    ]
    if "embedding" in found:
        by_vector = found["embedding"]
        rows.append(
            (
                "planted questions that are found by vectors alone, cosine 0.95 and more",
                f"{told(by_vector['recall'])}; {by_vector['others']} others in the pools",
            )
        )
    return rows


def told(recall: dict[str, float]) -> str:
    return ", ".join(f"{kind} {share:.1%}" for kind, share in recall.items())


def recipe_of(folder: Path, planted: bool, **screen: Any) -> Any:
    from tagsieve.config import validate
    from tagsieve.recipe import Recipe

    inputs = [
        {"path": str(common.DATA / "pools" / f"{pool}.jsonl.gz"), "pool": pool} for pool in POOLS
    ]
    if planted:
        inputs.append({"path": str(folder / "planted.jsonl"), "pool": "planted"})
    test_sets = [
        {"name": name, "path": str(common.DATA / "eval" / f"{name}.jsonl.gz"), "field": field}
        for name, field in FIELDS.items()
    ]
    values = {
        "lake": str(folder / "lake"),
        "inputs": inputs,
        "steps": ["ingest", "embed", "screen"],
        "screen": {"test_sets": test_sets} | screen,
    }
    return validate(Recipe, values, "benchmark")


def run(recipe: Any, *steps: Any) -> dict[str, Any]:
    """Run steps; gives the ledger's row of screen, and its screening."""
    from tagsieve.console import Console
    from tagsieve.engines.context import Engines
    from tagsieve.lake import Lake
    from tagsieve.runner import run_steps

    engines = Engines(recipe.spark, recipe.ray)
    try:
        run_id = run_steps(recipe, steps, Console(), engines)
    finally:
        engines.close()
    lake = Lake(recipe.lake)
    rows = lake.arrow("runs").to_pylist(maps_as_pydicts="strict")
    row = next(row for row in rows if (row["run_id"], row["step"]) == (run_id, "screen"))
    assert row["input"] == row["kept"] + sum(row["rejected"].values()), row
    (made,) = (r for r in lake.arrow("screenings").to_pylist() if r["run_id"] == run_id)
    own = [("screening", "=", made["screening"])]
    return row | {
        "screening": made,
        "twins": lake.arrow("near_duplicates", filters=own).to_pylist(),
        "questions": lake.arrow("contaminations", filters=own).to_pylist(),
        "lake": lake,
    }


def figures(done: dict[str, Any]) -> dict[str, Any]:
    gone = {row["sample_id"] for row in done["twins"]}
    assert not any(row["kept"] in gone for row in done["twins"])
    return {
        "samples": done["input"],
        "questions": done["screening"]["questions"],
        "near_duplicates": done["screening"]["near_duplicates"],
        "contaminated": done["screening"]["contaminated"],
        "seconds": done["metrics"]["seconds"],
        "peak_memory_mb": done["metrics"]["peak_memory_mb"],
    }


def pools(folder: Path) -> dict[str, Any]:
    """The pools as they are."""
    done = run(recipe_of(folder, planted=False), "ingest", "screen")
    return figures(done) | {
        **listed(done),
        "equal": sum(row["overlap"] > 1 - 1e-9 for row in done["questions"]),
    }


def listed(done: dict[str, Any]) -> dict[str, list[Any]]:
    """What was found, best first: `found` by places, `shown` with texts."""
    ids = [row["sample_id"] for row in done["questions"]]
    columns = ["sample_id", "pool", "source_row", "turns"]
    rows = done["lake"].arrow("samples", columns, [("sample_id", "in", ids)]).to_pylist()
    places = {row["sample_id"]: row for row in rows}
    found, shown = [], []
    for row in sorted(done["questions"], key=lambda row: -(row["overlap"] or row["similarity"])):
        place = places[row["sample_id"]]
        alike = round(row["overlap"] or row["similarity"], 3)
        where = f"{place['pool']}:{place['source_row']}"
        found.append([alike, where, f"{row['test_set']}:{row['question']}"])
        said = place["turns"][row["turn"] or 0]["content"]
        asked, said = (text[:SHOWN].replace("\n", " ") for text in (row["text"], said))
        shown.append(f"{alike:.2f} {where:>20} {found[-1][2]:>16} | {asked} || {said}")
    return {"found": found, "shown": shown}


def planted(folder: Path) -> dict[str, Any]:
    """The pools with a pool of planted rows."""
    rows, ids, twins = plant(folder)
    done = run(recipe_of(folder, planted=True), "ingest", "screen")
    found = {(r["sample_id"], r["test_set"], r["question"]) for r in done["questions"]}
    from planted import recall

    gone = {row["sample_id"] for row in done["twins"]} | {row[0] for row in found}
    there = set(done["lake"].arrow("samples", ["sample_id"])["sample_id"].to_pylist())
    # What has only a twin that is left out itself stays; a word replaced by itself makes no twin.
    twins = [
        twin
        for twin, original in twins
        if twin != original and original in there and original not in gone
    ]
    return figures(done) | {
        "recall": recall(rows, ids, found),
        "twins": len(twins),
        "twin_recall": sum(twin in gone for twin in twins) / len(twins),
    }


def plant(folder: Path) -> tuple[list[Any], list[str], list[tuple[str, str]]]:
    """Write the planted pool; gives the planted questions with their sample ids, and the sample
    ids of planted twins and of what they are twins of."""
    from parity.screening import jaccard, shingles
    from planted import REPLY, planted
    from tagsieve import records
    from tagsieve.test_sets.reading import read_questions

    rng = random.Random(0)
    with gzip.open(common.DATA / "pools" / "alpaca.jsonl.gz", "rt") as lines:
        alpaca = [json.loads(line) for line in lines]
    vocabulary = " ".join(row["instruction"] for row in alpaca).split()
    config = recipe_of(folder, planted=False).screen
    questions = planted(read_questions(config.test_sets).to_pylist(), vocabulary)
    pairs = [(text, REPLY) for _, _, text in questions]
    twins = []
    for row in rng.sample(alpaca, TWINS):
        asked = f"{row['instruction']}\n{row['input']}".strip()
        said = row["output"].split(" ")
        for _ in range(rng.randint(1, 3)):
            said[rng.randrange(len(said))] = rng.choice(vocabulary)
        reply = " ".join(said)
        own, other = shingles(f"{asked}\n{row['output']}"), shingles(f"{asked}\n{reply}")
        pairs.append((asked, reply))
        if reply.strip() and own and jaccard(own, other) >= config.near_duplicates.threshold:
            replies = (reply, row["output"])
            twins.append(
                tuple(records.sample_id([("user", asked), ("assistant", r)]) for r in replies)
            )
    with (folder / "planted.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"prompt": q, "completion": a}) + "\n" for q, a in pairs)
    ids = [records.sample_id([("user", text), ("assistant", REPLY)]) for _, _, text in questions]
    return questions, ids, twins


def embedding(folder: Path) -> dict[str, Any]:
    """Questions by vectors alone, among pools and planted rows."""
    from planted import recall

    rows, ids, _ = plant(folder)
    by_vector = {"embedding": {"threshold": 0.95}, "ngram": None, "near_duplicates": None}
    done = run(recipe_of(folder, planted=True, **by_vector), "embed", "screen")
    found = {(r["sample_id"], r["test_set"], r["question"]) for r in done["questions"]}
    own = set(ids)
    done["questions"] = [row for row in done["questions"] if row["sample_id"] not in own]
    return figures(done) | {
        "recall": recall(rows, ids, found),
        "others": len(done["questions"]),
        **listed(done),
    }


MEASURED = {"pools": pools, "planted": planted, "embedding": embedding}

if __name__ == "__main__":
    main()
