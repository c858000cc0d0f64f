"""A small bank of own examples, fitted once."""

import json

import pytest

from tagsieve.banking import make_bank
from tagsieve.console import Console

TOPICS = {
    "poem": ["Write a poem about {}", "Compose a short poem on {}", "A rhyming poem, please: {}"],
    "python": ["Write a Python function for {}", "In Python, how do I do {}?", "Python code: {}"],
    "translation": ["Translate {} into French", "How do you say {} in Spanish? Translate it."],
}
THINGS = ["the sea", "sorting", "a holiday", "prime numbers", "winter", "a list of names"]


def labelled():
    """Labelled queries; the tag spellings differ as a model's would."""
    spellings = {"poem": ["Poem", "poems"], "python": ["Python"], "translation": ["translation"]}
    for topic, forms in TOPICS.items():
        for number, (form, thing) in enumerate((f, t) for f in forms for t in THINGS):
            tag = spellings[topic][number % len(spellings[topic])]
            yield {"query": form.format(thing), "tags": [tag, f"rare {topic} {number}"]}


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "examples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in labelled()))
    return str(path)


@pytest.fixture(scope="session")
def own_bank(tmp_path_factory, examples):
    folder = str(tmp_path_factory.mktemp("bank") / "own")
    make_bank(folder, [examples], None, None, "own", "none", Console(quiet=True))
    return folder
