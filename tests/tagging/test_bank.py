"""Banks: fitting, predicting, files, and what ships with the project."""

import json
from pathlib import Path

import numpy as np
import pytest

from tagsieve.banking import make_bank, rule_tags
from tagsieve.console import Console
from tagsieve.engines.encoders import SentenceEncoder, cpu_dtype, packaged_minilm
from tagsieve.errors import UsageError
from tagsieve.ontology.config import RuleConfig
from tagsieve.tagging.bank import Bank, bank_digest
from tagsieve.tagging.build import read_examples
from tagsieve.tagging.memory import BUILTIN


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(packaged_minilm(), cpu_dtype())


def tags_of(bank, encoder, queries):
    return [found.tags for found in bank.predict(encoder.encode_whole(queries))]


def test_bank_of_own_examples_tags_like_them(own_bank, encoder):
    bank = Bank.load(own_bank, encoder)
    found = tags_of(
        bank,
        encoder,
        ["Write a poem about autumn", "Write a Python function for counting words"],
    )
    assert found[0][0] == "poem"
    assert found[1][0] == "python"


def test_bank_copies_rare_tags_of_a_repeated_query_only(own_bank, examples, encoder):
    bank = Bank.load(own_bank, encoder)
    query, tags = next(read_examples(examples))
    repeated, other = tags_of(bank, encoder, [query, "Write a poem about the moon"])
    assert tags[1] in repeated
    assert tags[1] not in other


def test_bank_abstains_on_what_it_does_not_know(own_bank, encoder):
    bank = Bank.load(own_bank, encoder)
    assert tags_of(bank, encoder, ["zq xv 77 ##"]) == [[]]


def test_predict_in_any_company_gives_the_same_tags_and_scores(encoder):
    bank = Bank.load(str(BUILTIN), encoder)
    queries = [f"Question {n}: how do I cook rice for {n} people?" for n in range(30)]
    queries += ["Write SQL that joins two tables", "写一首关于春天的诗", "2+2"] * 5
    together = bank.predict(encoder.encode_whole(queries))
    backwards = bank.predict(encoder.encode_whole(queries[::-1]))[::-1]
    alone = [bank.predict(encoder.encode_whole([query]))[0] for query in queries[-6:]]
    assert together == backwards
    assert together[-6:] == alone


def test_builtin_bank_tags_plain_requests_sensibly(encoder):
    bank = Bank.load(str(BUILTIN), encoder)
    sql, poem = tags_of(
        bank,
        encoder,
        ["Write a SQL query that lists all customers.", "Write a poem about the moon."],
    )
    assert "sql" in " ".join(sql)
    assert "poem" in " ".join(poem) or "poetry" in " ".join(poem)


def test_builtin_bank_holds_no_query_text():
    with np.load(BUILTIN / "model.npz") as arrays:
        strings = {name for name in arrays.files if arrays[name].dtype.kind in "US"}
        longest = max(len(tag) for name in strings for tag in arrays[name])
    assert strings == {"tags", "label_tags"}
    assert longest < 80
    assert set(json.loads((BUILTIN / "card.json").read_text())) >= {"sources", "licence"}


def test_bank_made_twice_is_the_same_to_the_bit(own_bank, examples, tmp_path):
    again = str(tmp_path / "again")
    make_bank(again, [examples], None, None, "own", "none", Console(quiet=True))
    assert bank_digest(again) == bank_digest(own_bank)


def test_rule_tags_name_a_stem_by_its_most_frequent_form():
    lists = [["Information_Retrieval"], ["information retrieval"], ["information retrieve", "C++"]]
    assert rule_tags(lists, RuleConfig()) == [
        ["information retrieval"],
        ["information retrieval"],
        ["information retrieval", "c++"],
    ]


def test_read_examples_names_the_line_that_is_wrong(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"query": "a", "tags": ["b"]}\n{"question": "a"}\n')
    with pytest.raises(UsageError, match=r"bad.jsonl:2 is no labelled query"):
        list(read_examples(str(path)))


@pytest.mark.parametrize("what", ["missing", "too few", "other encoder", "not empty"])
def test_bank_that_cannot_serve_says_what_to_do(what, own_bank, encoder, tmp_path):
    folder = tmp_path / "bank"
    quiet = Console(quiet=True)
    if what == "missing":
        with pytest.raises(UsageError, match=r"is no bank; use builtin"):
            Bank.load(str(folder), encoder)
    elif what == "too few":
        one = tmp_path / "one.jsonl"
        one.write_text('{"query": "a", "tags": ["b"]}\n')
        with pytest.raises(UsageError, match="has 3 examples"):
            make_bank(str(folder), [str(one)], None, None, "x", "", quiet)
    elif what == "other encoder":
        folder.mkdir()
        card = json.loads((Path(own_bank) / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | {"encoder": "0" * 16}))
        with pytest.raises(UsageError, match="was made with encoder"):
            Bank.load(str(folder), encoder)
    else:
        folder.mkdir()
        (folder / "thesis.tex").write_text("")
        with pytest.raises(UsageError, match="name another folder"):
            make_bank(str(folder), [], None, None, "x", "", quiet)
