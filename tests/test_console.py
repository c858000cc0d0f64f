"""What a person sees while a command runs."""

from tagsieve import console
from tagsieve.console import Console, duration


def test_progress_rate_leaves_out_the_wait_for_the_first_items(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    progress = Console(quiet=True).progress("tag", 1000, "queries")
    clock[0] = 60.0  # the engines start
    progress.advance(100)
    assert progress.text(clock[0]) == "tag: 100 of 1,000 queries"
    clock[0] = 70.0
    progress.advance(200)
    assert progress.text(clock[0]) == "tag: 300 of 1,000 queries, 20/s, 35 s left"


def test_progress_without_a_terminal_is_written_as_lines(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    progress = Console().progress("tag", 10, "queries")
    progress.advance(1)
    clock[0] = 11.0
    progress.advance(4)
    assert capsys.readouterr().out == "  tag: 5 of 10 queries, 0.4/s, 14 s left\n"


def test_duration_uses_the_two_largest_units():
    assert [duration(s) for s in (0.4, 59, 200, 7500)] == [
        "0 s", "59 s", "3 min 20 s", "2 h 5 min",
    ]  # fmt: skip


def test_table_shows_text_of_the_data_as_it_is(capsys):
    Console().table("t", ["a", "n"], [["[red]x[/red] :bug:", 1234567]])
    shown = capsys.readouterr().out
    assert "[red]x[/red] :bug:" in shown
    assert "1,234,567" in shown
