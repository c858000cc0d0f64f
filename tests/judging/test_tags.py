"""The quality of tags: cases, controls that are wrong, judges that are known, people's sheets."""

import csv
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from handmade import put, recorded, sample, tagged
from pages import check_alone
from stub_judge import engine
from tagsieve.config import validate
from tagsieve.errors import UsageError
from tagsieve.judging import TagSources, judge, task_of
from tagsieve.judging.cases import Case, draw_cases
from tagsieve.judging.config import JudgeTagsConfig
from tagsieve.judging.sheets import COLUMNS, majority, read_sheet, write_sheet

TAGS = [f"tag {n}" for n in range(30)]


def vectors(_, tags):
    """Tag 2 n and tag 2 n + 1 say the same; the others are half alike, or not at all."""
    rng = np.random.default_rng(0)
    of = {}
    for n in range(15):
        base = rng.normal(size=8)
        of[f"tag {2 * n}"], of[f"tag {2 * n + 1}"] = base, base + 0.01
    return np.array([of[tag] for tag in tags.to_pylist()], dtype=np.float32)


@pytest.fixture
def tagged_lake(lake):
    """200 queries with 1 to 4 tags; two without."""
    rng = random.Random(1)
    rows = {f"s{n}": rng.sample(TAGS, rng.randrange(1, 5)) for n in range(200)}
    rows |= {"s200": [], "s201": []}
    put(lake, "samples", [sample("p", key, [f"q{key}"], row=n) for n, key in enumerate(rows)])
    put(lake, "tags", [tagged(key, *tags) for key, tags in rows.items()])
    lake.truth = {f"q{key}": set(tags) for key, tags in rows.items()}
    return lake


def config_of(tmp_path, **settings):
    values = {"engine": {"kind": "recorded", "model": "m", "path": "x"}} | settings
    return validate(JudgeTagsConfig, {"name": "t", "path": str(tmp_path / "out")} | values, "t")


def test_cases_are_as_tagged_and_controls_are_wrong(tagged_lake, make_context, tmp_path):
    config = config_of(tmp_path, cases=60, controls=20, queries=4)
    context = make_context("judge")
    cases = draw_cases(context, config, "v1", vectors)
    truth = tagged_lake.truth
    counts = {}
    for case in cases:
        counts[case.kind, case.control] = counts.get((case.kind, case.control), 0) + 1
        rights = (
            [tag in truth[case.key] for tag in case.ids]
            if case.kind == "precision"
            else [case.key in truth[key] for key in case.ids]
        )
        assert rights == [place != case.wrong for place in range(len(case.ids))]
        if case.kind == "precision":
            assert case.items == case.ids
            assert case.shown == f"ask {case.key}"
            said = {int(tag.split()[1]) // 2 for n, tag in enumerate(case.ids) if n != case.wrong}
            if case.control:
                assert int(case.ids[case.wrong].split()[1]) // 2 not in said
        else:
            assert len(set(case.ids)) == 4
            assert case.items == tuple(f"ask {key}" for key in case.ids)
    assert counts == {
        ("precision", False): 60, ("precision", True): 20,
        ("consistency", False): 60, ("consistency", True): 20,
    }  # fmt: skip
    # Every tag gives a case before any gives two.
    drawn = [case.key for case in cases if (case.kind, case.control) == ("consistency", False)]
    assert len(set(drawn[:30])) == 30
    assert draw_cases(make_context("judge"), config, "v1", vectors) == cases
    other = draw_cases(make_context("judge"), config_of(tmp_path, cases=60, seed=1), "v1", vectors)
    assert other != cases


def strict_judge(truth):
    """Marks what is wrong, and of the right ones whatever has to do with tag 7."""

    def reply(prompt):
        if "It was given these tags" in prompt:
            key = re.search(r"ask (q\w+)\n</query>", prompt)[1]
            tags = re.findall(r"^\d+\. (tag \d+)$", prompt, re.MULTILINE)
            right = [tag in truth[key] and tag != "tag 7" for tag in tags]
        else:
            tag = re.search(r'the tag "(tag \d+)"', prompt)[1]
            keys = re.findall(r"ask (q\w+)\n</query \d+>", prompt)
            right = [tag in truth[key] and tag != "tag 7" for key in keys]
        wrong = [n for n, good in enumerate(right, start=1) if not good]
        return json.dumps({"wrong": wrong}) if len(wrong) != 3 else str(wrong)

    return reply


def fill(path, cases, person, truth):
    """A person fills in a sheet: right, but for one case in `person` + 2."""
    rows = list(csv.DictReader(Path(path).read_text("utf-8-sig").splitlines(keepends=True)))
    wanted = {case.number: case for case in cases}
    for n, row in enumerate(rows):
        case = wanted[row["case"]]
        wrong = [] if case.wrong is None else [case.wrong + 1]
        if n % (person + 2) == 0:
            wrong = [] if wrong else [1]
        row["wrong"] = ", ".join(map(str, wrong)) or "0"
    with Path(path).open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return {row["case"]: row["wrong"] == "0" for row in rows}


def fleiss(answers):
    """Fleiss' kappa by its definition, of people's answers by case."""
    n, cases = len(answers), list(answers[0])
    counts = [(sum(a[c] for a in answers), n - sum(a[c] for a in answers)) for c in cases]
    agree = sum(sum(k * (k - 1) for k in row) / (n * (n - 1)) for row in counts) / len(cases)
    shares = [sum(row[k] for row in counts) / (n * len(cases)) for k in (0, 1)]
    chance = sum(share * share for share in shares)
    return (agree - chance) / (1 - chance)


def cohen(one, other):
    agree = sum(one[c] == other[c] for c in one) / len(one)
    shares = [[sum(side[c] == value for c in one) / len(one) for value in (True, False)]
              for side in (one, other)]  # fmt: skip
    chance = sum(a * b for a, b in zip(*shares, strict=True))
    return (agree - chance) / (1 - chance)


def test_shares_agreement_and_the_worst_tags_are_the_judges(
    tagged_lake, engines, make_context, endpoint, tmp_path
):
    lake, truth = tagged_lake, tagged_lake.truth
    endpoint.reply = strict_judge(truth)
    config = config_of(
        tmp_path, engine=engine(endpoint), cases=80, controls=30, queries=4, human_cases=25
    )
    sources = TagSources("v1", vectors)

    def run(run_id):
        line = recorded(lake, engines, "judge", run_id, judge, task_of(config, tags=sources))
        return line, json.loads((tmp_path / "out" / "t.json").read_text())

    line, figures = run("r1")
    assert line.kept == line.input == sum(endpoint.calls.values())
    cases = draw_cases(make_context("judge"), config, "v1", vectors)
    for kind, told in figures["kinds"].items():
        own = [case for case in cases if (case.kind, case.control) == (kind, False)]
        bad = [case for case in own if "tag 7" in (case.key, *case.ids)]
        assert told["original"] == {
            "cases": 80, "judged": 80, "right": pytest.approx(1 - len(bad) / 80)
        }  # fmt: skip
        assert told["counterfactual"]["right"] == 0
        assert told["fleiss_kappa"] is told["cohen_kappa"] is None
        assert [each["tag"] for each in told["worst"]] == ["tag 7"]
    sheets = [tmp_path / "out" / f"t-sheet-{n}.csv" for n in (1, 2, 3)]
    people = [fill(path, cases, person, truth) for person, path in enumerate(sheets)]

    again, figures = run("r2")
    assert (again.known, again.kept) == (line.kept, 0)
    assert figures["people"] == 3
    by_number = {case.number: case for case in cases}
    assert len(people[0]) == 100
    for kind, told in figures["kinds"].items():
        own = [{c: a for c, a in person.items() if by_number[c].kind == kind} for person in people]
        most = {c: sum(person[c] for person in own) >= 2 for c in own[0]}
        strict = {
            c: not by_number[c].control and "tag 7" not in (by_number[c].key, *by_number[c].ids)
            for c in most
        }
        assert told["fleiss_kappa"] == pytest.approx(fleiss(own))
        assert told["cohen_kappa"] == pytest.approx(cohen(most, strict))
        for name, control in (("people_original", False), ("people_counterfactual", True)):
            of = [a for c, a in most.items() if by_number[c].control == control]
            assert told[name]["right"] == pytest.approx(sum(of) / len(of))
    page = (tmp_path / "out" / "t.html").read_text()
    check_alone(page)
    assert "tag 7" in page


CASES = [
    Case("precision", "q1", "=HYPERLINK(1)", ("a", "b"), ("@sum", "b")),
    Case("consistency", "-tag", "-tag", ("q1", "q2"), ("+1", "a\nb, \"c\"")),
]  # fmt: skip


def sheet(tmp_path, *entries, delimiter=",", rename=str):
    import fsspec

    files, path = fsspec.core.url_to_fs(str(tmp_path / "s.csv"))
    write_sheet(files, path, CASES)
    rows = list(csv.reader(Path(path).read_text("utf-8-sig").splitlines(keepends=True)))
    for row, entry in zip(rows[1:], entries, strict=False):
        row[0], row[-1] = rename(row[0]), entry
    with Path(path).open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return files, path, rows


def test_no_cell_of_a_sheet_is_a_formula_and_nothing_tells_a_control(tmp_path):
    _, path, rows = sheet(tmp_path)
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell[:1] in {"=", "+", "-", "@", "\t", "\r"}]
    assert rows[1][2] == "'=HYPERLINK(1)"
    assert rows[2][3] == '1. +1\n2. a\nb, "c"'
    assert Path(path).read_bytes().startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize(
    ("entry", "right"), [("0", True), ("-", True), ("None", True), ("2", False), ("1; 2", False)]
)
def test_entries_are_read_as_people_write_them(tmp_path, delimiter, entry, right):
    files, path, _ = sheet(tmp_path, entry, " ", delimiter=delimiter)
    assert read_sheet(files, path, CASES) == {CASES[0].number: right}


@pytest.mark.parametrize(
    ("entry", "rename", "told"),
    [
        ("3", str, r"wrong='3'; expected numbers from 1 to 2, or 0"),
        ("both", str, "wrong='both'"),
        ("1", lambda name: f"x{name}", "is no case of this recipe; put the sheet aside"),
    ],
)
def test_a_sheet_that_cannot_be_read_is_refused(tmp_path, entry, rename, told):
    files, path, _ = sheet(tmp_path, entry, rename=rename)
    with pytest.raises(UsageError, match=told):
        read_sheet(files, path, CASES)


def test_a_majority_is_more_than_half_of_those_who_answered_all():
    one, other = (case.number for case in CASES)
    people = [{one: True, other: True}, {one: False}]
    assert majority(people, CASES) == {one: False}
    assert majority([*people, {one: True, other: False}], CASES) == {one: True}
    assert majority([], CASES) == {}
