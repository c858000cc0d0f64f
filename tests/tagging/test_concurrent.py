"""Two runs for one tagger at the same time: one goes on, nothing is asked or written twice."""

import pytest

from query_lakes import QUERIES, add_samples, tagged
from tagsieve.engines.microbatch import Writer
from tagsieve.errors import RunError
from tagsieve.lake import rows_table
from tagsieve.lease import lease
from tagsieve.tagging import MemoryTaggerConfig, tag, tagger_fingerprint


@pytest.fixture
def config(own_bank):
    return MemoryTaggerConfig(banks=(own_bank,))


def test_tag_while_another_run_holds_the_lease_is_refused(lake, make_context, config):
    add_samples(lake, QUERIES)
    with lease(lake, f"tag-{tagger_fingerprint(config)}", "other"):
        with pytest.raises(RunError, match=r"run other \(process \d+ on .*is at this work"):
            tag(make_context("tag"), config)
    assert lake.version("raw_tags") is None
    tag(make_context("tag"), config)
    assert len(tagged(lake)) == 5


@pytest.mark.parametrize(
    ("held", "free"),
    [
        ({"process": 2**22 + 1}, True),  # of this machine, and gone
        ({"since": 0.0}, True),  # its number went to another process
        ({"machine": "elsewhere", "renewed": 0.0}, True),
        ({"machine": "elsewhere"}, False),
        ({}, False),
    ],
)
def test_lease_is_taken_over_from_the_dead_only(lake, monkeypatch, held, free):
    import tagsieve.lease

    mine = tagsieve.lease._mine
    monkeypatch.setattr(tagsieve.lease, "_mine", lambda run_id: mine(run_id) | held)
    with lease(lake, "work", "first"):
        monkeypatch.setattr(tagsieve.lease, "_mine", mine)
        if free:
            with lease(lake, "work", "second"):
                pass
        else:
            with pytest.raises(RunError, match="run first"), lease(lake, "work", "second"):
                pass


def test_commit_after_another_run_has_committed_is_refused(lake, make_context, config, monkeypatch):
    """A run that lost its lease unseen (a machine that slept) must not repeat rows."""
    add_samples(lake, QUERIES)
    tagger = tagger_fingerprint(config)
    asleep = Writer(lake, "raw_tags", f"tag {tagger}")
    tag(make_context("tag"), config)
    version = lake.version("raw_tags")
    row = {"query_id": "q", "tagger": tagger, "tags": [], "run_id": "asleep"}
    with pytest.raises(RunError, match="another run committed to raw_tags"):
        asleep.append("raw_tags", rows_table("raw_tags", [row]))
    assert lake.version("raw_tags") == version
    # For another tagger it is free.
    Writer(lake, "raw_tags", "tag other").append("raw_tags", rows_table("raw_tags", [row]))
