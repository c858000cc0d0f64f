"""`tagsieve bank build`: labelled queries become a bank for the memory tagger."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from deltalake import QueryBuilder

from tagsieve.console import Console
from tagsieve.errors import UsageError
from tagsieve.lake import Lake
from tagsieve.ontology.config import RuleConfig
from tagsieve.ontology.rules import TagRule
from tagsieve.tagging.build import build_bank, folder_is_free, read_examples


def make_bank(
    folder: str,
    files: Sequence[str],
    lake: Lake | None,
    tagger: str | None,
    name: str,
    licence: str,
    console: Console,
) -> None:
    """Read labelled queries from files and from a lake's `raw_tags`, fit a bank, write it.

    Raw tags with one stem count as one, named by their most frequent surface form (the rule step of
    normalisation). All examples are held in memory.
    """
    folder_is_free(folder)
    examples = [example for path in files for example in read_examples(path)]
    if lake is not None:
        examples += _lake_examples(lake, tagger)
    if not examples:
        raise UsageError("bank: no labelled query; name files, or a lake with --lake")
    console.line(f"{len(examples):,} labelled queries")
    queries = [query for query, _ in examples]
    tags = rule_tags([tags for _, tags in examples], RuleConfig())
    sources = [Path(path).name for path in files] + (
        [f"lake {Path(lake.root).name}"] if lake else []
    )
    bank = build_bank(queries, tags, name, sources, licence, console)
    bank.save(folder)
    console.line(f"wrote {folder}: {len(bank.tags):,} tags with a head, {bank.card.tags:,} in all")


def rule_tags(tag_lists: Sequence[Sequence[str]], config: RuleConfig) -> list[list[str]]:
    """Each list with its tags' display forms, each once: the rule step over a small table."""
    rule = TagRule(config)
    forms = display_forms(tag_lists, rule)
    return [named(tags, rule, forms) for tags in tag_lists]


def display_forms(tag_lists: Sequence[Sequence[str]], rule: TagRule) -> dict[str, str]:
    """The display form of each stem: its most frequent surface form."""
    surfaces: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for tags in tag_lists:
        for tag in tags:
            surfaces[rule.stem(tag)][rule.surface(tag)] += 1
    return {
        stem: min(counts, key=lambda form: (-counts[form], len(form), form))
        for stem, counts in surfaces.items()
    }


def named(tags: Sequence[str], rule: TagRule, forms: Mapping[str, str]) -> list[str]:
    """The tags by their display forms, each once; a tag of an unknown stem by its own surface."""
    return list(dict.fromkeys(forms.get(rule.stem(tag), rule.surface(tag)) for tag in tags))


def _lake_examples(lake: Lake, tagger: str | None) -> list[tuple[str, list[str]]]:
    samples, raw_tags = lake.delta("samples"), lake.delta("raw_tags")
    if samples is None or raw_tags is None:
        raise UsageError(f"lake {lake.root} has no samples or no raw_tags")
    taggers = sorted(set(lake.arrow("raw_tags", ["tagger"])["tagger"].to_pylist()))
    if tagger not in taggers and len(taggers) != 1:
        raise UsageError(f"name one tagger of lake {lake.root} with --tagger: {', '.join(taggers)}")
    chosen = tagger or taggers[0]
    turns = QueryBuilder().register("samples", samples)
    rows = turns.execute("SELECT query_ids, turns FROM samples").read_all()
    texts: dict[str, str] = {}
    for ids, listed in zip(rows["query_ids"].to_pylist(), rows["turns"].to_pylist(), strict=True):
        asked = [turn["content"] for turn in listed if turn["role"] == "user"]
        texts.update(zip(ids, asked, strict=True))
    tagged = lake.arrow("raw_tags", ["query_id", "tags"], [("tagger", "=", chosen)]).to_pylist()
    return [
        (texts[row["query_id"]], [tag["tag"] for tag in row["tags"]])
        for row in tagged
        if row["tags"] and row["query_id"] in texts
    ]
