"""Near-duplicates and contamination one row after the other, by sets of strings."""

import math
import unicodedata

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def words(text):
    """NFC, case-folded; letters, marks and digits; a letter without spaces alone."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    found, before = [], "none"
    for sign in folded:
        kind = unicodedata.category(sign)[0]
        alone = kind in "LN" and unicodedata.name(sign, "").startswith(UNSPACED)
        if kind not in "LMN":
            before = "none"
        elif before != "none" and (kind == "M" or (not alone and before == "word")):
            found[-1] += sign
        else:
            found.append(sign)
            before = "letter" if alone else "word"
    return found


def shingles(text, size=5, of="words"):
    """The set of shingles of a text."""
    pieces = words(text)
    if of == "characters":
        pieces = list("".join(pieces))
    last = max(len(pieces) - size, 0)
    return {tuple(pieces[start : start + size]) for start in range(last + 1)} if pieces else set()


def jaccard(left, right):
    """The Jaccard similarity of two sets."""
    return len(left & right) / len(left | right)


def twins(texts, threshold=0.8, size=5, of="words"):
    """Of texts in the order of who stays (`[(id, text)]`): id -> (kept id, similarity) of those
    that are left out, each compared with every text that stays."""
    kept, removed = {}, {}
    for key, text in texts:
        own = shingles(text, size, of)
        if not own:
            continue
        alike = [(-jaccard(own, other), place) for place, other in enumerate(kept.values())]
        nearest, place = min(alike, default=(0, 0))
        if -nearest >= threshold:
            removed[key] = (list(kept)[place], -nearest)
        else:
            kept[key] = own
    return removed


def overlaps(turns, questions, size=2, min_overlap=0.7, whole_below=5):
    """(turn, question) -> overlap, by their places in two lists of texts."""

    def grams(listed):
        return {tuple(listed[i : i + size]) for i in range(len(listed) - size + 1)}

    said = [words(turn) for turn in dict.fromkeys(turns)]
    said = [grams(listed) for listed in said if listed]
    found = {}
    for number, question in enumerate(questions):
        asked = words(question)
        weights = {
            gram: math.log1p(len(said) / (1 + sum(gram in each for each in said)))
            for gram in grams(asked)
        }
        for place, turn in enumerate(turns):
            if asked and len(asked) < max(whole_below, size):
                overlap = float(words(turn) == asked)
            else:
                shared = grams(words(turn)) & weights.keys()
                overlap = sum(weights[gram] for gram in shared) / (sum(weights.values()) or 1)
            if overlap >= min_overlap:
                found[place, number] = overlap
    return found
