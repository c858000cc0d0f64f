"""A judge with known preferences and a known position bias, behind the stub endpoint."""

import json
import re
import zlib

MARKS = re.compile(r"<(sample|answer of assistant) (\d)>\n(.*?)\n</\1 \2>", re.DOTALL)


def worth(text, high=100):
    """How good the judge finds a text, in the lower 6 tenths of its scale, so that a bias has room:
    its own taste, the same for everyone who asks."""
    return 1 + zlib.crc32(text.encode()) % (high * 6 // 10)


def verdict(first, second, bias, high=100):
    """Scores of two texts in the order in which they are shown."""
    return worth(first, high) + bias, worth(second, high)


def shown(prompt):
    """The two texts in a prompt."""
    texts = [text for _, _, text in MARKS.findall(prompt)]
    assert len(texts) == 2, prompt
    return texts


def judge_of(bias, high=100, form="json"):
    """What an endpoint replies: scores of the two texts of a prompt."""

    def reply(prompt):
        first, second = verdict(*shown(prompt), bias, high)
        if form == "json":
            return json.dumps({"feedback": "so so", "first": first, "second": second})
        return f"{first} {second}\nThe first one, and then the second one."

    return reply


def engine(endpoint, **settings):
    """Settings of a judge at an endpoint."""
    return {"kind": "http", "base_url": endpoint.url, "model": "stub", "concurrency": 8} | settings
