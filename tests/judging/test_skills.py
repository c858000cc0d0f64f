"""Skills of models: the most frequent ones, and means that are the judge's."""

import json
import re
import zlib
from collections import defaultdict

import pytest

from handmade import recorded
from pages import check_alone
from stub_judge import engine
from tagsieve.config import validate
from tagsieve.errors import UsageError
from tagsieve.judging import judge, task_of
from tagsieve.judging.config import JudgeSkillsConfig
from tagsieve.judging.skills import most_frequent

SKILLS = ["Logic", "Facts", "Humour", "Brevity"]
ASKED = [[SKILLS[n % 3], SKILLS[n % 2]] for n in range(24)] + [["Brevity"], ["Logic", "Brevity"]]


def score(response, skill):
    return 1 + zlib.crc32(f"{response} {skill}".encode()) % 5


def reply(prompt):
    response = re.search(r"<response>\n(.*)\n</response>", prompt)[1]
    skills = re.findall(r"^- (\w+)$", prompt, re.MULTILINE)
    scores = {skill: score(response, skill) for skill in skills}
    if len(skills) == 1:
        return json.dumps(scores)
    listed = [{"skill": skill.upper(), "score": value} for skill, value in scores.items()]
    return f"Here you are: {json.dumps({'scores': listed})}"


@pytest.fixture
def config_of(tmp_path, endpoint):
    def make(**settings):
        rows = [{"q": f"Question {n}", "skill": skills} for n, skills in enumerate(ASKED)]
        (tmp_path / "flask.jsonl").write_text("\n".join(map(json.dumps, rows)))
        for model in ("a", "b"):
            told = [{"output": f"{model} answers {n}"} for n in range(len(ASKED))]
            (tmp_path / f"{model}.jsonl").write_text("\n".join(map(json.dumps, told)))
        values = {
            "name": "t",
            "path": str(tmp_path / "out"),
            "engine": engine(endpoint),
            "test_sets": [{"name": "f", "path": str(tmp_path / "flask.jsonl"), "field": "q"}],
            "answers": {m: {"path": str(tmp_path / f"{m}.jsonl")} for m in ("a", "b")},
            "keep": 3,
        }
        return validate(JudgeSkillsConfig, values | settings, "t")

    return make


def test_means_by_skill_are_those_of_the_judge(lake, engines, endpoint, config_of, tmp_path):
    endpoint.reply = reply
    line = recorded(lake, engines, "judge", "r1", judge, task_of(config_of()))
    figures = json.loads((tmp_path / "out" / "t.json").read_text())
    assert line.kept == sum(endpoint.calls.values()) == 48
    assert (figures["questions"], figures["left_out"]) == (24, 2)
    assert figures["skills"] == ["Logic", "Facts", "Humour"]
    for model, told in figures["models"].items():
        expected = defaultdict(list)
        for n, skills in enumerate(ASKED[:24]):
            for skill in set(skills):
                expected[skill].append(score(f"{model} answers {n}", skill))
        means = {skill: sum(values) / len(values) for skill, values in expected.items()}
        assert told["skills"] == pytest.approx(means)
        assert told["counts"] == {skill: len(values) for skill, values in expected.items()}
        assert told["mean"] == pytest.approx(sum(means.values()) / 3)
    page = (tmp_path / "out" / "t.html").read_text()
    check_alone(page)
    assert "Humour" in page


def test_the_most_frequent_skills_are_counted_once_a_question():
    assert most_frequent([["b", "a"], ["b"], ["c"], ["a"]], 2) == ["a", "b"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"keep": 1, "skills": "q"}, r"judge.skills=q: no list of texts there in line 1"),
        ({"skills": "level"}, r"judge.skills=level: no list of texts there .* has: q, skill"),
    ],
)
def test_questions_without_skills_are_refused(config_of, settings, told):
    with pytest.raises(UsageError, match=told):
        task_of(config_of(**settings))
