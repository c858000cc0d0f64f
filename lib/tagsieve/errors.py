"""The ways in which a command ends badly; everything else is a bug and keeps its traceback."""

from collections.abc import Iterator
from contextlib import contextmanager


class TagsieveError(Exception):
    """An error that a person can mend: its text says what was found and what to change."""

    exit_code = 1


class RunError(TagsieveError):
    """The run cannot go on: an engine, a disk, a table. Exit code 1."""


class UsageError(TagsieveError):
    """The command line, the recipe or its inputs are wrong. Exit code 2."""

    exit_code = 2


class EngineDied(RunError):  # noqa: N818
    """An engine that answers no more, through no fault of its settings: a new one may work."""


@contextmanager
def noted_on(failure: BaseException) -> Iterator[None]:
    """For what is still to do after a failure: an error in it becomes a note on the failure, which
    it would hide."""
    try:
        yield
    except Exception as error:
        failure.add_note(f"then, too: {type(error).__name__}: {error}")
