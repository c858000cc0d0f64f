"""Sheets on which people judge the same cases: CSV files for spreadsheets, written, then read."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tagsieve.errors import UsageError
from tagsieve.judging.cases import Case
from tagsieve.page import write_text

COLUMNS = ("case", "question", "text", "items", "wrong")

QUESTIONS = {
    "precision": "Which of these tags are wrong for the text?",
    "consistency": "In which of these texts does the tag mean something else, or not apply?",
}

_NOTHING = {"-", "0", "none"}

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that a spreadsheet takes for a formula."""


def write_sheet(files: Any, path: str, cases: Sequence[Case]) -> None:
    """Write an empty sheet. `wrong` is for the person: the numbers of what is wrong, or 0. Raises
    RunError where it cannot be written."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for case in cases:
        items = "\n".join(f"{number}. {item}" for number, item in enumerate(case.items, start=1))
        cells = (case.number, QUESTIONS[case.kind], case.shown, items, "")
        writer.writerow([_defused(cell) for cell in cells])
    # The mark lets spreadsheets read it as UTF-8.
    write_text("judge.path", files, path, f"\ufeff{text.getvalue()}")


def _defused(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def read_sheet(files: Any, path: str, cases: Sequence[Case]) -> dict[str, bool]:
    """Case numbers to whether a person found nothing wrong; cases that are not filled in are left
    out.

    Raises UsageError for a sheet of other cases, or an entry that is neither numbers of the case's
    items nor 0.
    """
    counts = {case.number: len(case.items) for case in cases}
    with files.open(path, "r", encoding="utf-8-sig", newline="") as stream:
        text = stream.read()
    delimiter = ";" if text.splitlines()[:1] == [";".join(COLUMNS)] else ","
    rows = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    if not {"case", "wrong"} <= set(rows.fieldnames or ()):
        raise UsageError(f"sheet {path}: expected the columns {', '.join(COLUMNS)}")
    found: dict[str, bool] = {}
    for row in rows:
        number, entry = (row["case"] or "").strip(), (row["wrong"] or "").strip()
        if number not in counts:
            raise UsageError(
                f"sheet {path}: {number!r:.40} is no case of this recipe; put the sheet aside, and "
                "run again for a new one"
            )
        if entry:
            found[number] = _right(entry, counts[number], f"sheet {path}: case {number}")
    return found


def _right(entry: str, count: int, place: str) -> bool:
    if entry.casefold() in _NOTHING:
        return True
    parts = [part for part in re.split(r"[\s,;.]+", entry) if part]
    if not all(part.isdecimal() and 1 <= int(part) <= count for part in parts):
        raise UsageError(
            f"{place}: wrong={entry!r:.40}; expected numbers from 1 to {count}, or 0 where nothing "
            "is wrong"
        )
    return False


def majority(answers: Sequence[Mapping[str, bool]], cases: Sequence[Case]) -> dict[str, bool]:
    """Case numbers to whether more than half of the people found nothing wrong; of the cases that
    all of them have filled in."""
    return {
        case.number: 2 * sum(person[case.number] for person in answers) > len(answers)
        for case in cases
        if answers and all(case.number in person for person in answers)
    }
