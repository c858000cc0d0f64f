"""Test questions and texts as they get into training data: as they are, and changed a little."""

import random
import re

KINDS = ("verbatim", "case", "punctuation", "replaced", "dropped", "inserted", "inside")
REPLY = "Here is what I think of it."


def edited(text, kind, rng, vocabulary):
    """A text as it is, with the case of its letters or its punctuation changed, with one word
    replaced by another, left out or put in, or inside a longer text with one word replaced."""
    if kind == "verbatim":
        return text
    if kind == "case":
        return text.upper() if text != text.upper() else text.lower()
    if kind == "punctuation":
        return " , ".join(re.sub(r"[^\w\s]", " ", text).split()) + " ..."
    words = text.split()
    place = rng.randrange(len(words))
    if kind == "dropped" and len(words) > 1:
        del words[place]
    elif kind == "inserted":
        words.insert(place, rng.choice(vocabulary))
    else:
        words[place] = rng.choice(vocabulary)
    changed = " ".join(words)
    if kind == "inside":
        before, after = (" ".join(rng.choices(vocabulary, k=30)) for _ in range(2))
        return f"{before}. {changed} {after}."
    return changed


def planted(questions, vocabulary, seed=0):
    """(kind, question, text) of every question in each kind; `questions`: rows of test sets."""
    rng = random.Random(seed)
    return [
        (kind, (row["test_set"], row["question"]), edited(row["text"], kind, rng, vocabulary))
        for row in questions
        for kind in KINDS
    ]


def recall(rows, sample_ids, found):
    """Kind -> share of the planted rows of which (sample id, question) was found."""
    counts = {}
    for (kind, question, _), sample_id in zip(rows, sample_ids, strict=True):
        counts.setdefault(kind, []).append((sample_id, *question) in found)
    return {kind: sum(hits) / len(hits) for kind, hits in counts.items()}
