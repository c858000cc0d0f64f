"""What the docs say of tables and settings is what the code has."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_spec = importlib.util.spec_from_file_location("docs_make", ROOT / "docs" / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


@pytest.mark.parametrize("path", make.WRITTEN, ids=lambda path: path.name)
def test_docs_written_from_the_code_are_up_to_date(path):
    now = path.read_text(encoding="utf-8")
    assert now == make.filled(path, make.WRITTEN[path]()), "run python docs/make.py"


def test_docs_give_every_setting_a_description():
    rows = re.findall(r"^\| `(.*?)` \| .*? \| (.*) \|$", make.settings(), re.MULTILINE)
    assert len(rows) > 40
    assert [key for key, text in rows if not text] == []


def test_docs_name_every_rejection_reason_of_ingest():
    code = "".join(p.read_text() for p in (ROOT / "lib/tagsieve/ingest").glob("*.py"))
    recipes = (ROOT / "docs/recipes.md").read_text()
    reasons = {"unparsable", "invalid_utf8", "not_an_object", "unknown_format", "wrong_type",
               "missing_role", "unknown_role", "no_human_turn", "empty_query", "no_response",
               "empty_response", "too_long", "too_many_turns", "language", "duplicate"}  # fmt: skip
    assert all(f'"{reason}"' in code for reason in reasons)
    assert all(f"`{reason}`" in recipes for reason in reasons)


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_docs_link_to_what_is_there(path):
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []
