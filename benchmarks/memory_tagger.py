"""Quality of the embedded tagger by 5-fold cross-validation, and what it costs beside its encoder.

    python benchmarks/memory_tagger.py

Quality: the labelled queries of ../shared/data/tags/llm_tags.jsonl.gz, in five folds by a hash of
their query_id; each fold is tagged by a bank of the other four (`Bank.fit`, `Bank.predict`: what
ships). Two salts of the hash give two sets of folds: the model was chosen by looking at folds, none
of which had the second salt. Display forms, thresholds and all other choices come from the four
training folds. A tag of the test fold has the display form that its stem has in training, else its
own surface form.

- restricted: gold and prediction keep only tags with at least 3 queries in the training folds.
- micro F1: of the pairs (query, tag) of all five folds together; exact match.
- macro F1 by tag: mean over the tags that are gold or predicted in the test fold; mean of folds.
- macro F1 by query: mean over the queries with a gold or predicted tag.
- fuzzy F1: a predicted tag is right when its MiniLM cosine with any gold tag of the query is over
  0.8 (or they are equal); a gold tag is found when any predicted one is as near.
- abstained: queries with an empty tag list.

Baseline: nearest neighbours. The k nearest queries vote by cosine; k and one threshold are chosen
leave-one-out in the training folds.

Cost: `MemoryTagger` against `SentenceEncoder.encode` over the same Alpaca queries, same threads and
precision, in blocks run one after the other in alternating order; the median over blocks of the
extra time.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import common
from tagsieve.banking import display_forms, named
from tagsieve.console import Console, duration
from tagsieve.engines.encoders import Encoded, SentenceEncoder, cpu_dtype, packaged_minilm
from tagsieve.ontology.config import RuleConfig
from tagsieve.ontology.rules import TagRule
from tagsieve.records import query_id
from tagsieve.tagging.bank import Bank, Card
from tagsieve.tagging.build import encode_all, read_examples
from tagsieve.tagging.config import MemoryTaggerConfig
from tagsieve.tagging.memory import MemoryTagger

FOLDS = 5
SALTS = ("", "again ")
FREQUENT = 3
FUZZY = 0.8
BLOCK = 1000

Tags = list[list[str]]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--speed-rows", type=int, default=20_000)
    threads, speed_rows = vars(arguments.parse_args()).values()
    console = Console()
    encoder = SentenceEncoder(packaged_minilm(), cpu_dtype(), threads)
    examples = list(read_examples(str(common.DATA / "tags" / "llm_tags.jsonl.gz")))
    queries, raw = [query for query, _ in examples], [tags for _, tags in examples]
    encoded = encode_all(encoder, queries, console)
    phrases = phrase_vectors(encoder, raw, console)
    quality = {}
    for salt in SALTS:
        folds = np.array([fold_of(query, salt) for query in queries])
        quality[f"folds by hash of {salt + 'query_id'!r}"] = cross_validated(
            encoder, encoded, raw, folds, phrases, console
        )
    cost = cost_beside_encoder(encoder, threads, speed_rows, console)
    figures = {
        "queries": len(queries),
        "dtype": cpu_dtype(),
        "threads": threads,
        "quality": quality,
        "cost": cost,
    }
    for title, by_tagger in quality.items():
        names = list(by_tagger)
        console.table(
            title,
            ["", *names],
            [[figure, *(by_tagger[n][figure] for n in names)] for figure in by_tagger[names[0]]],
        )
    console.table("beside the encoder", ["", "value"], [list(pair) for pair in cost.items()])
    common.write("memory_tagger", {**figures, "readme": for_readme(quality, cost)})


def for_readme(quality: dict[str, Any], cost: dict[str, float]) -> list[tuple[str, str]]:
    """The rows of the README's table: both sets of folds, the baseline, the cost."""
    figure = "micro F1, restricted"
    ours = " / ".join(f"{by['memory'][figure]:.1f} %" for by in quality.values())
    theirs = " / ".join(f"{by['nearest neighbours'][figure]:.1f} %" for by in quality.values())
    first = next(iter(quality.values()))["memory"]
    rest = (
        f"{first['micro F1, unrestricted']:.1f} % / {first['macro F1 by tag, restricted']:.1f} % / "
        f"{first['fuzzy F1, unrestricted']:.1f} % / {first['abstained']:.1f} %"
    )
    return [
        ("embedded tagger, exact micro F1 on tags with 3 examples, two sets of 5 folds", ours),
        ("the same by nearest neighbours", theirs),
        ("all tags / macro by tag / fuzzy (first set); abstains", rest),
        ("embedded tagger's time over its bare encoder's", f"+{cost['extra time, percent']:.0f} %"),
    ]


# --- quality ------------------------------------------------------------------------------------


def fold_of(query: str, salt: str) -> int:
    digest = hashlib.sha256((salt + query_id(query)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % FOLDS


def phrase_vectors(
    encoder: SentenceEncoder, raw: Sequence[Sequence[str]], console: Console
) -> dict[str, Any]:
    """Vectors of all surface forms: whatever the folds, display forms are among them."""
    rule = TagRule(RuleConfig())
    forms = sorted({rule.surface(tag) for tags in raw for tag in tags})
    console.line(f"encoding {len(forms):,} tags")
    return dict(zip(forms, encoder.encode(forms), strict=True))


def cross_validated(
    encoder: SentenceEncoder,
    encoded: Encoded,
    raw: Sequence[Sequence[str]],
    folds: Any,
    phrases: dict[str, Any],
    console: Console,
) -> dict[str, dict[str, float]]:
    """The figures of the memory tagger and of the baseline."""
    rule = TagRule(RuleConfig())
    counts: dict[str, list[dict[str, Any]]] = {"memory": [], "nearest neighbours": []}
    for fold in range(FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        forms = display_forms([raw[row] for row in train], rule)
        known = [named(raw[row], rule, forms) for row in train]
        gold = [named(raw[row], rule, forms) for row in test]
        answers = {}
        started = time.monotonic()
        bank = Bank.fit(encoder, part(encoded, train), known, Card("", [], "", 0, 0, ""))
        fitted = time.monotonic() - started
        answers["memory"] = [found.tags for found in bank.predict(part(encoded, test))]
        answers["nearest neighbours"] = nearest_tags(
            encoded.vectors[train], known, encoded.vectors[test]
        )
        often = Counter(tag for tags in known for tag in tags)
        frequent = {tag for tag, count in often.items() if count >= FREQUENT}
        for name, predicted in answers.items():
            counts[name].append(fold_counts(gold, predicted, frequent, phrases))
        reached = [f1(*counts[name][-1]["restricted"]) for name in counts]
        console.line(
            f"fold {fold + 1} of {FOLDS}: fitted in {duration(fitted)}, restricted micro F1 "
            f"{reached[0]:.1%}, nearest neighbours {reached[1]:.1%}"
        )
        counts["memory"][-1]["fit_seconds"] = fitted
    return {name: summary(listed) for name, listed in counts.items()}


def part(encoded: Encoded, rows: Any) -> Encoded:
    return Encoded(
        encoded.vectors[rows], encoded.poolings[rows], [encoded.tokens[row] for row in rows]
    )


def nearest_tags(examples: Any, tag_lists: Tags, queries: Any) -> Tags:
    """The baseline: tags whose share of the votes of the k nearest reaches the threshold."""
    names = sorted({tag for tags in tag_lists for tag in tags})
    index = {tag: number for number, tag in enumerate(names)}
    truth = np.zeros((len(examples), len(names)), dtype=np.float32)
    for row, tags in enumerate(tag_lists):
        truth[row, [index[tag] for tag in tags]] = 1
    left_out = examples @ examples.T
    np.fill_diagonal(left_out, -1)
    best = (-1.0, 0, 0.0)
    for k in (3, 5, 10, 20):
        share = votes(left_out, truth, k)
        for threshold in np.arange(0.1, 0.7, 0.025):
            found = share >= threshold
            score = f1(float(truth[found].sum()), float(found.sum()), float(truth.sum()))
            best = max(best, (score, k, float(threshold)))
    _, k, threshold = best
    share = votes(queries @ examples.T, truth, k)
    return [[names[tag] for tag in np.flatnonzero(row >= threshold)] for row in share]


def votes(cosine: Any, truth: Any, k: int) -> Any:
    nearest = np.argpartition(-cosine, k, axis=1)[:, :k]
    weight = np.maximum(np.take_along_axis(cosine, nearest, axis=1), 1e-6)
    weight /= weight.sum(1, keepdims=True)
    return np.stack([w @ truth[rows] for w, rows in zip(weight, nearest, strict=True)])


def f1(hits: float, predicted: float, gold: float) -> float:
    return 2 * hits / max(predicted + gold, 1e-9)


def fold_counts(
    gold: Tags, predicted: Tags, frequent: set[str], phrases: dict[str, Any]
) -> dict[str, Any]:
    """Hits, predictions and gold of one fold, in all the ways they are counted."""
    some_gold, some_predicted = kept(gold, frequent), kept(predicted, frequent)
    per_tag: dict[str, list[int]] = {}
    for wanted, found in zip(some_gold, some_predicted, strict=True):
        for tag in {*wanted, *found}:
            entry = per_tag.setdefault(tag, [0, 0, 0])
            entry[0] += tag in wanted and tag in found
            entry[1] += tag in found
            entry[2] += tag in wanted
    return {
        "restricted": pair_counts(some_gold, some_predicted),
        "unrestricted": pair_counts(gold, predicted),
        "by_tag": statistics.mean(f1(*entry) for entry in per_tag.values()),
        "by_query": [
            f1(*pair_counts([wanted], [found]))
            for wanted, found in zip(gold, predicted, strict=True)
            if wanted or found
        ],
        "fuzzy": fuzzy_counts(gold, predicted, phrases),
        "abstained": [not found for found in predicted],
        "tags": [len(found) for found in predicted],
    }


def kept(lists: Tags, frequent: set[str]) -> Tags:
    return [[tag for tag in tags if tag in frequent] for tags in lists]


def pair_counts(gold: Tags, predicted: Tags) -> tuple[int, int, int]:
    hits = sum(len({*a} & {*b}) for a, b in zip(gold, predicted, strict=True))
    return hits, sum(map(len, predicted)), sum(map(len, gold))


def fuzzy_counts(gold: Tags, predicted: Tags, phrases: dict[str, Any]) -> tuple[int, int, int, int]:
    """Right predictions, predictions; found gold tags, gold tags."""
    right = found = 0
    for wanted, said in zip(gold, predicted, strict=True):
        if wanted and said:
            cosine = (
                np.stack([phrases[tag] for tag in said])
                @ np.stack([phrases[tag] for tag in wanted]).T
            )
            near = (cosine > FUZZY) | (np.array(said)[:, None] == np.array(wanted)[None])
            right += int(near.any(1).sum())
            found += int(near.any(0).sum())
    return right, sum(map(len, predicted)), found, sum(map(len, gold))


def summary(folds: list[dict[str, Any]]) -> dict[str, float]:
    """The figures of all folds together; shares as percentages."""
    figures: dict[str, float] = {}
    for way in ("restricted", "unrestricted"):
        hits, predicted, gold = (
            sum(column) for column in zip(*(f[way] for f in folds), strict=True)
        )
        each = [100 * f1(*fold[way]) for fold in folds]
        figures[f"micro F1, {way}"] = 100 * f1(hits, predicted, gold)
        figures[f"precision, {way}"] = 100 * hits / max(predicted, 1)
        figures[f"recall, {way}"] = 100 * hits / gold
        figures[f"standard deviation of folds, {way}"] = statistics.stdev(each)
    figures["macro F1 by tag, restricted"] = 100 * statistics.mean(f["by_tag"] for f in folds)
    figures["macro F1 by query, unrestricted"] = 100 * mean_of(f["by_query"] for f in folds)
    right, said, found, wanted = (
        sum(column) for column in zip(*(f["fuzzy"] for f in folds), strict=True)
    )
    precision, recall = right / max(said, 1), found / wanted
    figures["fuzzy F1, unrestricted"] = 200 * precision * recall / max(precision + recall, 1e-9)
    figures["abstained"] = 100 * mean_of(f["abstained"] for f in folds)
    figures["tags per query"] = mean_of(f["tags"] for f in folds)
    figures["fit seconds"] = statistics.mean(f.get("fit_seconds", 0.0) for f in folds)
    return {name: round(value, 2) for name, value in figures.items()}


def mean_of(lists: Iterable[Sequence[float]]) -> float:
    return statistics.mean(float(value) for listed in lists for value in listed)


# --- cost ---------------------------------------------------------------------------------------


def cost_beside_encoder(
    encoder: SentenceEncoder, threads: int, rows: int, console: Console
) -> dict[str, float]:
    """The tagger's extra time over the encoder's, block by block."""
    texts = alpaca_queries(rows)
    tagger = MemoryTagger(MemoryTaggerConfig(), "tagger", "run", threads)
    tagger.start({})
    progress = console.progress("speed", len(texts), "queries")
    extra, bare_rates, tagger_rates = [], [], []
    encoder.encode(texts[:BLOCK])  # warm
    for start in range(0, len(texts), BLOCK):
        block = texts[start : start + BLOCK]
        batch = pa.table({"query_id": list(map(query_id, block)), "text": block})
        runs = [lambda block=block: encoder.encode(block), lambda batch=batch: tagger.run(batch)]
        bare_first = start // BLOCK % 2 == 0
        timed = [seconds(run) for run in (runs if bare_first else runs[::-1])]
        bare, whole = timed if bare_first else timed[::-1]
        extra.append(whole / bare - 1)
        bare_rates.append(len(block) / bare)
        tagger_rates.append(len(block) / whole)
        progress.advance(len(block))
    quartiles = statistics.quantiles(extra, n=4)
    return {
        "queries": len(texts),
        "encoder, queries per second": round(statistics.median(bare_rates), 1),
        "tagger, queries per second": round(statistics.median(tagger_rates), 1),
        "extra time, percent": round(100 * quartiles[1], 1),
        "extra time, lower quartile": round(100 * quartiles[0], 1),
        "extra time, upper quartile": round(100 * quartiles[2], 1),
    }


def alpaca_queries(number: int) -> list[str]:
    """The first Alpaca queries: instruction and input, as the project's ingest joins them."""
    with gzip.open(common.DATA / "pools" / "alpaca.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(number), lines, strict=False)]
    return ["\n".join(filter(None, (row["instruction"], row["input"]))) for row in rows]


def seconds(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
