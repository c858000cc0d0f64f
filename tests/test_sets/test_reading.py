"""Questions from files of JSON lines, and what is said of those that lack them."""

import gzip
import json

import pytest

from tagsieve.errors import UsageError
from tagsieve.test_sets.config import Answers
from tagsieve.test_sets.config import TestSet as Questions
from tagsieve.test_sets.reading import read_answers, read_questions

SHAPES = {
    "ifeval": ("prompt", 541),
    "koala": ("prompt", 180),
    "lima": ("conversations.0", 300),
    "sinstruct": (("instruction", "instances.0.input"), 252),
    "vicuna": ("text", 80),
    "wizardlm": ("Instruction", 218),
}


@pytest.fixture
def write(tmp_path):
    def write(*records, name="t.jsonl"):
        path = tmp_path / name
        lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
        content = "\n".join(lines).encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


def read(path, field):
    return read_questions([Questions(name="t", path=path, field=field)]).to_pylist()


def test_questions_are_numbered_by_their_lines_in_plain_and_packed_files(write):
    records = [{"q": "first\u2028one"}, "", {"q": "第二"}]
    for name in ("t.jsonl", "t.jsonl.gz"):
        assert read(write(*records, name=name), "q") == [
            {"test_set": "t", "question": 0, "text": "first\u2028one"},
            {"test_set": "t", "question": 2, "text": "第二"},
        ]


def test_questions_of_several_keys_are_put_together(write):
    rows = [{"a": "do it", "b": [{"c": "here"}]}, {"a": "do that", "b": [{"c": ""}]}]
    found = read(write(*rows), ("a", "b.0.c"))
    assert [row["text"] for row in found] == ["do it\nhere", "do that"]


@pytest.mark.parametrize("name", SHAPES)
def test_questions_of_the_five_test_sets_and_ifeval(shared_data, name):
    field, count = SHAPES[name]
    found = read(str(shared_data / "eval" / f"{name}.jsonl.gz"), field)
    assert len(found) == count
    assert all(row["text"].strip() for row in found)


@pytest.mark.parametrize(
    ("records", "field", "said"),
    [
        ([{"q": "a"}, {"p": "b"}], "q", r"test_sets.0.field=q: no text there in line 2 .*has: p"),
        ([{"q": " "}], "q", "field=q: no text there in line 1"),
        ([{"q": "a"}], ("q", "r.0"), r"field=r.0: no text there in any line .*has: q"),
        ([{"q": "a"}, "{"], "q", r"test_sets.0.path: .*line 2: not JSON"),
        (["[1]"], "q", "line 1: expected a JSON object"),
        ([""], "q", "has no line"),
    ],
)
def test_questions_that_lack_something_are_refused_by_setting_and_line(write, records, field, said):
    with pytest.raises(UsageError, match=said):
        read(write(*records), field)


def test_questions_of_files_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"screen.test_sets.0.path=.*: no such file"):
        read(str(tmp_path / "none.jsonl"), "q")
    (tmp_path / "bad.gz").write_text("no gzip")
    with pytest.raises(UsageError, match="cannot be read"):
        read(str(tmp_path / "bad.gz"), "q")


def answered(write, answers, questions=({"q": "one"}, {"q": "two"}), field="output"):
    asked = Questions(name="t", path=write(*questions), field="q")
    write(*answers, name="t-x.jsonl")
    path = asked.path.replace("t.jsonl", "{test_set}-x.jsonl")
    return read_answers([asked], {"x": Answers(path=path, field=field)}).to_pylist()


def test_answers_lie_beside_their_questions(write):
    found = answered(write, [{"output": "1"}, {"q": "two", "output": ""}])
    assert [(row["text"], row["answers"]) for row in found] == [("one", ["1"]), ("two", [""])]
    found = answered(write, [{"q": "1"}, {"q": "2"}], field="q")
    assert [row["answers"] for row in found] == [["1"], ["2"]]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([{"output": "1"}], r"judge.answers.x.path=.*: has 1 answers, .* has 2 questions"),
        ([{"output": "1"}, "", {"output": "2"}], "line for line"),
        ([{"output": "1"}, {"text": "2"}], r"x.field=output: no text there in line 2 .*has: text"),
        ([{"q": "two", "output": "1"}, {"q": "one", "output": "2"}], "line 1 is of another quest"),
    ],
)
def test_answers_to_other_questions_are_refused(write, answers, told):
    with pytest.raises(UsageError, match=told):
        answered(write, answers)
