"""Lakes made by hand: rows put straight into tables, and steps run as recorded ones."""

from itertools import count

from tagsieve.console import Console
from tagsieve.engines.context import Context
from tagsieve.lake import rows_table
from tagsieve.ledger import record_step

_commits = count()


def put(lake, table, rows):
    """Append rows (missing columns are null) as one commit."""
    lake.append_once(table, rows_table(table, rows), f"by hand {next(_commits)}", 1)


def sample(pool, key, queries=("q",), turns=None, meta=None, row=0):
    """A row of `samples` that has the given queries; its turns ask and answer them."""
    asked = [pair for q in queries for pair in (("user", f"ask {q}"), ("assistant", f"say {q}"))]
    return {
        "pool": pool,
        "sample_id": key,
        "turns": [{"role": role, "content": text} for role, text in turns or asked],
        "query_ids": list(queries),
        "lang": "en",
        "meta": meta or {},
        "source": f"file:///{pool}.jsonl",
        "source_row": row,
        "run_id": "by hand",
    }


def answer(query, *tags, tagger="t"):
    """A row of `raw_tags`."""
    listed = [{"tag": tag, "explanation": ""} for tag in tags]
    return {"query_id": query, "tagger": tagger, "tags": listed, "run_id": "by hand"}


def tagged(key, *tags, version="v1"):
    """A row of `tags` of a conversation with one turn."""
    return {
        "sample_id": key,
        "tagger": "t",
        "ontology_version": version,
        "tags": list(tags),
        "turn_tags": [list(tags)],
    }


def recorded(lake, engines, step, run_id, function, *args):
    """Run a step's function with its line of the ledger; gives that line."""
    with record_step(lake, run_id, step, "{}") as run:
        function(Context(lake, engines, run, Console(quiet=True)), *args)
    return run


def rows_of(lake, table, **equal):
    """Rows of a table as dicts, those where each named column has the given value."""
    found = lake.arrow(table).to_pylist(maps_as_pydicts="strict")
    return [row for row in found if all(row[name] == value for name, value in equal.items())]
