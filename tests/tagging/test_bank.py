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
from tagsieve.tagging.heads import RIDGE, from_few_bits, in_few_bits, ridge
from tagsieve.tagging.judge import Judge, tag_thresholds
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


@pytest.mark.parametrize("text", ["zq xv 77 ##", "", "qwx zzkj vvbq"])
def test_builtin_bank_abstains_on_nonsense(text, encoder):
    bank = Bank.load(str(BUILTIN), encoder)
    assert tags_of(bank, encoder, [text]) == [[]]


def test_builtin_bank_holds_no_query_text():
    with np.load(BUILTIN / "model.npz") as arrays:
        strings = {name for name in arrays.files if arrays[name].dtype.kind in "US"}
        longest = max(len(tag) for name in strings for tag in arrays[name])
    assert strings == {"names"}
    assert longest < 80
    assert set(json.loads((BUILTIN / "card.json").read_text())) >= {"sources", "licence"}


def test_bank_made_twice_is_the_same_to_the_bit(own_bank, examples, tmp_path):
    again = str(tmp_path / "again")
    make_bank(again, [examples], None, None, "own", "none", Console(quiet=True))
    assert bank_digest(again) == bank_digest(own_bank)


@pytest.mark.parametrize(("examples", "width"), [(12, 30), (30, 12)])
def test_ridge_left_out_scores_are_those_of_heads_fitted_without_the_example(examples, width):
    random = np.random.default_rng(0)
    rows = random.normal(size=(examples, width)).astype(np.float32)
    truth = (random.random((examples, 3)) < 0.4).astype(np.float32)
    heads, left_out = ridge(rows, truth)
    for example in range(examples):
        x, y = np.delete(rows, example, 0), np.delete(truth, example, 0)
        without = np.linalg.solve(x.T @ x + RIDGE * np.eye(width), x.T @ y)
        assert np.allclose(left_out[example], rows[example] @ without, atol=1e-3)
    whole = np.linalg.solve(rows.T @ rows + RIDGE * np.eye(width), rows.T @ truth)
    assert np.allclose(heads, whole, atol=1e-4)


def test_in_few_bits_comes_back_within_half_a_step():
    matrix = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    arrays = in_few_bits("heads", matrix, steps=3)
    assert arrays["heads"].dtype == np.int8
    error = np.abs(from_few_bits(arrays, "heads") - matrix)
    assert (error <= arrays["heads_step"] * 0.501).all()


def test_judge_learns_what_needs_two_features_at_once():
    features = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32)
    truth = (features[:, 0] * features[:, 1] > 0).astype(np.float32)
    judge = Judge.fit(features, truth)
    assert ((judge.chances(features) > 0.5) == truth).mean() > 0.95
    stored = Judge.of(judge.arrays("judge"), "judge")
    assert np.array_equal(stored.chances(features[:3]), judge.chances(features)[:3])


def test_tag_thresholds_are_lower_for_a_tag_that_is_right_more_often_than_its_chances():
    chances = np.tile(np.array([0.2, 0.4, 0.6, 0.8]), 200)
    tags = np.repeat([0, 1], 400)
    random = np.random.default_rng(0)
    truth = (random.random(800) < np.where(tags == 0, chances**0.5, chances)).astype(float)
    found = tag_thresholds(chances, truth, tags, np.arange(800) // 4 % 5, 3, truth.sum())
    assert found[0] < found[1]
    assert found[2] == pytest.approx(found[1], abs=0.1)


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
        with pytest.raises(UsageError, match="has 4 examples"):
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
