"""The ways in which a command ends badly; everything else is a bug and keeps its traceback."""


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
