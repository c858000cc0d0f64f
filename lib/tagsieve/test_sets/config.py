"""Test sets in a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from tagsieve.config import RecipeModel


class TestSet(RecipeModel):
    """The questions of a test set, in a file of JSON lines."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the test set.")
    path: str = Field(description="File or URI; compressed by its ending (.gz and others).")
    field: str | tuple[str, ...] = Field(
        description="Key of the question; dots and numbers reach inside, as in conversations.0; "
        "of a list of keys the texts are put together with line breaks, and all but the first may "
        "be blank.",
    )

    @property
    def fields(self) -> tuple[str, ...]:
        """The keys of the question."""
        return (self.field,) if isinstance(self.field, str) else self.field


class Answers(RecipeModel):
    """What a model answered to the questions of test sets, in files of JSON lines."""

    path: str = Field(
        description="File or URI; {test_set} in it stands for the name of a test set. Its lines "
        "are those of the test set's questions.",
    )
    field: str = Field("output", description="Key of the answer, as of test_sets.")


def named_once(test_sets: Sequence[TestSet]) -> None:
    """Raise ValueError where two test sets have one name."""
    names = [test_set.name for test_set in test_sets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"test_sets names {twice[0]} twice; give each a name of its own")
