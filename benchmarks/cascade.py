"""The cascade's curve: share of language-model calls against F1.

    python benchmarks/cascade.py        # about 5 minutes; ../shared/data must be there

The labelled queries of ../shared/data/tags/llm_tags.jsonl.gz in five folds, as in memory_tagger.py:
each fold is tagged by a bank of the other four, and the recorded tags of the language model (with
the display forms of training) are the expensive tagger and the truth. At each threshold the least
confident queries take the recorded tags, the others the memory tagger's. Beside the true micro F1
stand the one that the scores let expect, which is all that a run has to choose by, and the one of
the same share of calls spent at random. First checked: `choose_threshold` gives what a plain count
over the queries gives. Writes results/cascade.json and results/cascade.png.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import common
from memory_tagger import FOLDS, fold_of, part
from tagsieve.banking import display_forms, named
from tagsieve.console import Console
from tagsieve.engines.encoders import SentenceEncoder, cpu_dtype, packaged_minilm
from tagsieve.ontology.config import RuleConfig
from tagsieve.ontology.rules import TagRule
from tagsieve.tagging.bank import Bank, Card
from tagsieve.tagging.build import encode_all, read_examples
from tagsieve.tagging.cascade import DIGITS, Bin, choose_threshold
from tagsieve.tagging.config import CascadeConfig
from tagsieve.tagging.memory import expected_f1

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9)
LLM = {"kind": "http", "base_url": "http://recorded/v1", "model": "recorded"}


def main() -> None:
    console = Console()
    rows, mean_tags = answers(console)
    by_share = [point(rows, mean_tags, CascadeConfig(llm=LLM, llm_share=s)) for s in SHARES]
    by_target = [point(rows, mean_tags, CascadeConfig(llm=LLM, target_f1=t)) for t in TARGETS]
    columns = ["asked for", "threshold", "share of calls", "micro F1", "expected", "at random"]
    for title, asked, points in (
        ("by budget (llm_share)", SHARES, by_share),
        ("by quality (target_f1)", TARGETS, by_target),
    ):
        console.table(
            title, columns, [[a, *p.values()] for a, p in zip(asked, points, strict=True)]
        )
    draw(by_share)
    at = dict(zip(SHARES, by_share, strict=True))
    common.write(
        "cascade",
        {
            "queries": len(rows),
            "mean_tags": round(mean_tags, 3),
            "by_share": by_share,
            "by_target": by_target,
            "readme": [
                (
                    "cascade: micro F1 at 0 / 30 / 50 / 70 % of the calls (at random)",
                    " / ".join(f"{at[s]['micro_f1']:.0%}" for s in (0.0, 0.3, 0.5, 0.7))
                    + " ("
                    + " / ".join(f"{at[s]['random_f1']:.0%}" for s in (0.0, 0.3, 0.5, 0.7))
                    + ")",
                )
            ],
        },
    )


def answers(console: Console) -> tuple[list[dict[str, Any]], float]:
    """For each query its confidence, tags predicted, tags of the model, tags in both."""
    encoder = SentenceEncoder(packaged_minilm(), cpu_dtype())
    examples = list(read_examples(str(common.DATA / "tags" / "llm_tags.jsonl.gz")))
    queries, raw = [query for query, _ in examples], [tags for _, tags in examples]
    encoded = encode_all(encoder, queries, console)
    folds = np.array([fold_of(query, "") for query in queries])
    rule = TagRule(RuleConfig())
    rows, means = [], []
    for fold in range(FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        forms = display_forms([raw[row] for row in train], rule)
        known = [named(raw[row], rule, forms) for row in train]
        bank = Bank.fit(encoder, part(encoded, train), known, Card("", [], "", 0, 0, ""))
        means.append(bank.mean_tags)
        for row, found in zip(test, bank.predict(part(encoded, test)), strict=True):
            gold = set(named(raw[row], rule, forms))
            rows.append(
                {
                    "confidence": round(expected_f1(found.scores, bank.mean_tags), DIGITS),
                    "predicted": len(found.tags),
                    "gold": len(gold),
                    "hits": len(gold & set(found.tags)),
                }
            )
        console.line(f"fold {fold + 1} of {FOLDS}")
    return rows, float(np.mean(means))


def point(rows: list[dict[str, Any]], mean_tags: float, config: CascadeConfig) -> dict[str, float]:
    bins: dict[float, list[int]] = {}
    for row in rows:
        held = bins.setdefault(row["confidence"], [0, 0])
        held[0], held[1] = held[0] + 1, held[1] + row["predicted"]
    chosen = choose_threshold([Bin(c, *held) for c, held in bins.items()], config, mean_tags)
    asked = [row["confidence"] < chosen.value for row in rows]
    # The plain count.
    share = sum(asked) / len(rows)
    assert abs(share - chosen.llm_share) < 1e-9
    hits = sum(row["gold"] if ask else row["hits"] for row, ask in zip(rows, asked, strict=True))
    found = sum(
        row["gold"] if ask else row["predicted"] for row, ask in zip(rows, asked, strict=True)
    )
    gold = sum(row["gold"] for row in rows)
    own = {name: sum(row[name] for row in rows) for name in ("hits", "predicted")}
    random_hits = share * gold + (1 - share) * own["hits"]
    random_found = share * gold + (1 - share) * own["predicted"]
    return {
        "threshold": chosen.value,
        "llm_share": round(share, 4),
        "micro_f1": round(2 * hits / (found + gold), 4),
        "expected_f1": round(chosen.expected_f1, 4),
        "random_f1": round(2 * random_hits / (random_found + gold), 4),
    }


def draw(points: list[dict[str, float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    shares = [100 * p["llm_share"] for p in points]
    for name, label, style in (
        ("micro_f1", "cascade", "o-"),
        ("expected_f1", "expected from the scores", "s--"),
        ("random_f1", "the same calls at random", "^:"),
    ):
        axes.plot(shares, [100 * p[name] for p in points], style, label=label, markersize=4)
    axes.set(xlabel="share of language-model calls, %", ylabel="micro F1, %", ylim=(0, 101))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(common.RESULTS / "cascade.png", dpi=130)


if __name__ == "__main__":
    main()
