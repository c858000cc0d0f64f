"""The lake: the names and schemas of all tables, and the only place that commits to them.

Every table is a Delta table that both engines can read and write: Spark through delta-spark, Ray
workers and the driver through delta-rs (`deltalake`). Tables are created here, with protocol
reader 1 / writer 2: deletion vectors, column mapping, liquid clustering, v2 checkpoints, identity
and generated columns would make a table unreadable or unwritable for delta-rs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.dataset
from deltalake import (
    CommitProperties,
    DeltaTable,
    Schema,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from tagsieve.errors import RunError, UsageError, noted_on

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FORMAT = 1
"""Version of the tables' layout. Raised only when an older tagsieve could misread a lake."""

FORMAT_PROPERTY = "tagsieve.format"
KEEP_LOG = {"delta.enableExpiredLogCleanup": "false"}
"""Delta would drop the log of versions older than 30 days, and with it what runs pin."""

PATIENCE = 60.0
"""Seconds for which a commit that loses races is tried again, at least."""

_READABLE_FEATURES = {"timestampNtz"}
_Given = TypeVar("_Given")

Where = Mapping[str, str | int | list[str]]
"""Columns and their values; of a list, any."""


@dataclass(frozen=True)
class Table:
    """Name, key, Arrow schema and partition columns of one table."""

    name: str
    key: tuple[str, ...]
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()


def _table(
    name: str,
    key: tuple[str, ...],
    columns: Mapping[str, pa.DataType],
    partition_by: tuple[str, ...] = (),
) -> Table:
    fields = [pa.field(n, kind, nullable=n not in key) for n, kind in columns.items()]
    return Table(name, key, pa.schema(fields), partition_by)


_STRING = pa.string()
_STRINGS = pa.list_(pa.string())
_COUNTS = pa.map_(pa.string(), pa.int64())
_TIME = pa.timestamp("us", tz="UTC")
TURNS = pa.list_(pa.struct([("role", _STRING), ("content", _STRING)]))
TAGS = pa.list_(pa.struct([("tag", _STRING), ("explanation", _STRING)]))

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        _table(
            "samples",
            ("pool", "sample_id"),
            {
                "pool": _STRING,
                "sample_id": _STRING,
                "turns": TURNS,
                "query_ids": _STRINGS,
                "lang": _STRING,
                "meta": pa.map_(_STRING, _STRING),
                "source": _STRING,
                "source_row": pa.int64(),
                "run_id": _STRING,
            },
            partition_by=("pool",),
        ),
        _table(
            "raw_tags",
            ("query_id", "tagger"),
            {
                "query_id": _STRING,
                "tagger": _STRING,
                "tags": TAGS,
                "run_id": _STRING,
                "flags": _STRINGS,
                "confidence": pa.float64(),
                "prompt_tokens": pa.int64(),
                "output_tokens": pa.int64(),
            },
            partition_by=("tagger",),
        ),
        _table(
            "cascades",
            ("tagger",),
            {
                "tagger": _STRING,
                "threshold": pa.float64(),
                "llm_share": pa.float64(),
                "expected_f1": pa.float64(),
                "queries": pa.int64(),
                "memory": _STRING,
                "llm": _STRING,
                "created": _TIME,
                "run_id": _STRING,
            },
        ),
        _table(
            "ontology_versions",
            ("version",),
            {
                "version": _STRING,
                "tagger": _STRING,
                "parent": _STRING,
                "config": _STRING,
                "edits": _STRING,
                "encoder": _STRING,
                "read_versions": _COUNTS,
                "created": _TIME,
                "run_id": _STRING,
            },
        ),
        _table(
            "ontology",
            ("version", "raw_tag", "update"),
            {
                "version": _STRING,
                "raw_tag": _STRING,
                "count": pa.int64(),
                "status": _STRING,
                "rule_tag": _STRING,
                "tag": _STRING,
                "surface": _STRING,
                "stem": _STRING,
                "semantic_tag": _STRING,
                "item_tag": _STRING,
                "how": _STRING,
                "update": pa.int64(),
            },
            partition_by=("version",),
        ),
        _table(
            "ontology_updates",
            ("version", "update"),
            {
                "version": _STRING,
                "update": pa.int64(),
                "samples": pa.int64(),
                "queries": pa.int64(),
                "occurrences": pa.int64(),
                "known": pa.int64(),
                "by_stem": pa.int64(),
                "by_similarity": pa.int64(),
                "by_edit": pa.int64(),
                "grown": pa.int64(),
                "rare": pa.int64(),
                "pending": pa.int64(),
                "due": _STRING,
                "read_versions": _COUNTS,
                "created": _TIME,
                "run_id": _STRING,
            },
        ),
        _table(
            "ontology_items",
            ("version", "tag"),
            {"version": _STRING, "tag": _STRING, "item": pa.int64(), "uses": pa.int64()},
            partition_by=("version",),
        ),
        _table(
            "ontology_rules",
            ("version", "antecedent", "consequent"),
            {
                "version": _STRING,
                "antecedent": _STRINGS,
                "consequent": _STRING,
                "support": pa.int64(),
                "confidence": pa.float64(),
                "lift": pa.float64(),
            },
            partition_by=("version",),
        ),
        _table(
            "tag_vectors",
            ("encoder", "tag"),
            {"encoder": _STRING, "tag": _STRING, "vector": pa.list_(pa.float32())},
            partition_by=("encoder",),
        ),
        _table(
            "tags",
            ("sample_id", "tagger", "ontology_version"),
            {
                "sample_id": _STRING,
                "tagger": _STRING,
                "ontology_version": _STRING,
                "tags": _STRINGS,
                "turn_tags": pa.list_(_STRINGS),
            },
            partition_by=("ontology_version",),
        ),
        _table(
            "pool_stats",
            ("ontology_version", "pool"),
            {
                "ontology_version": _STRING,
                "pool": _STRING,
                "samples": pa.int64(),
                "queries": pa.int64(),
                "untagged_queries": pa.int64(),
                "tags": pa.int64(),
                "diversity": pa.float64(),
                "complexity": pa.float64(),
            },
            partition_by=("ontology_version",),
        ),
        _table(
            "pool_recall",
            ("ontology_version", "pool", "other_pool"),
            {
                "ontology_version": _STRING,
                "pool": _STRING,
                "other_pool": _STRING,
                "recall": pa.float64(),
            },
            partition_by=("ontology_version",),
        ),
        _table(
            "pool_tags",
            ("ontology_version", "pool", "tag"),
            {
                "ontology_version": _STRING,
                "pool": _STRING,
                "tag": _STRING,
                "samples": pa.int64(),
                "share": pa.float64(),
                "lift": pa.float64(),
            },
            partition_by=("ontology_version",),
        ),
        _table(
            "tag_pairs",
            ("ontology_version", "tag", "other_tag"),
            {
                "ontology_version": _STRING,
                "tag": _STRING,
                "other_tag": _STRING,
                "samples": pa.int64(),
                "lift": pa.float64(),
            },
            partition_by=("ontology_version",),
        ),
        _table(
            "tag_coverage",
            ("ontology_version", "rank"),
            {
                "ontology_version": _STRING,
                "rank": pa.int64(),
                "tag": _STRING,
                "samples": pa.int64(),
                "coverage": pa.float64(),
            },
            partition_by=("ontology_version",),
        ),
        _table(
            "tag_funnel",
            ("ontology_version", "position"),
            {
                "ontology_version": _STRING,
                "position": pa.int64(),
                "stage": _STRING,
                "tags": pa.int64(),
                "occurrences": pa.int64(),
            },
            partition_by=("ontology_version",),
        ),
        _table(
            "tagger_agreement",
            ("tagger", "other"),
            {
                "tagger": _STRING,
                "other": _STRING,
                "queries": pa.int64(),
                "queries_this_only": pa.int64(),
                "queries_other_only": pa.int64(),
                "equal": pa.float64(),
                "jaccard": pa.float64(),
                "precision": pa.float64(),
                "recall": pa.float64(),
                "f1": pa.float64(),
                "macro_f1": pa.float64(),
                "tags_per_query": pa.float64(),
                "other_tags_per_query": pa.float64(),
                "run_id": _STRING,
            },
            partition_by=("tagger", "other"),
        ),
        _table(
            "tagger_only_tags",
            ("tagger", "other", "side", "tag"),
            {
                "tagger": _STRING,
                "other": _STRING,
                "side": _STRING,
                "tag": _STRING,
                "queries": pa.int64(),
                "shared": pa.int64(),
            },
            partition_by=("tagger", "other"),
        ),
        _table(
            "centroids",
            ("clustering", "cluster"),
            {"clustering": _STRING, "cluster": pa.int64(), "vector": pa.list_(pa.float32())},
            partition_by=("clustering",),
        ),
        _table(
            "clusters",
            ("clustering", "sample_id"),
            {
                "clustering": _STRING,
                "sample_id": _STRING,
                "cluster": pa.int64(),
                "distance": pa.float64(),
            },
            partition_by=("clustering",),
        ),
        _table(
            "tag_clusters",
            ("clustering", "tag"),
            {
                "clustering": _STRING,
                "tag": _STRING,
                "cluster": pa.int64(),
                "distance": pa.float64(),
            },
            partition_by=("clustering",),
        ),
        _table(
            "cluster_labels",
            ("clustering", "cluster"),
            {
                "clustering": _STRING,
                "cluster": pa.int64(),
                "label": _STRING,
                "tags": pa.int64(),
                "samples": pa.int64(),
                "representative": _STRING,
            },
            partition_by=("clustering",),
        ),
        _table(
            "embeddings",
            ("sample_id", "encoder"),
            {
                "sample_id": _STRING,
                "encoder": _STRING,
                "vector": pa.list_(pa.float32()),
                "tokens": pa.int64(),
                "truncated": pa.bool_(),
                "run_id": _STRING,
            },
            partition_by=("encoder",),
        ),
        _table(
            "scores",
            ("sample_id", "turn", "scorer"),
            {
                "sample_id": _STRING,
                "turn": pa.int64(),
                "scorer": _STRING,
                "value": pa.float64(),
                "tokens": pa.int64(),
                "flags": _STRINGS,
                "run_id": _STRING,
            },
            partition_by=("scorer",),
        ),
        _table(
            "screenings",
            ("screening",),
            {
                "screening": _STRING,
                "config": _STRING,
                "samples": pa.int64(),
                "questions": pa.int64(),
                "near_duplicates": pa.int64(),
                "contaminated": pa.int64(),
                "created": _TIME,
                "run_id": _STRING,
            },
        ),
        _table(
            "near_duplicates",
            ("screening", "sample_id"),
            {
                "screening": _STRING,
                "sample_id": _STRING,
                "kept": _STRING,
                "similarity": pa.float64(),
                "run_id": _STRING,
            },
            partition_by=("screening",),
        ),
        _table(
            "contaminations",
            ("screening", "sample_id", "test_set", "question"),
            {
                "screening": _STRING,
                "sample_id": _STRING,
                "test_set": _STRING,
                "question": pa.int64(),
                "how": _STRING,
                "overlap": pa.float64(),
                "similarity": pa.float64(),
                "turn": pa.int64(),
                "text": _STRING,
                "run_id": _STRING,
            },
            partition_by=("screening",),
        ),
        _table(
            "generations",
            ("generation_id",),
            {
                "generation_id": _STRING,
                "kind": _STRING,
                "prompt_id": _STRING,
                "parent_id": _STRING,
                "model": _STRING,
                "text": _STRING,
                "run_id": _STRING,
                "seed_id": _STRING,
                "round": pa.int64(),
                "operator": _STRING,
                "prompt_tokens": pa.int64(),
                "output_tokens": pa.int64(),
            },
            partition_by=("model",),
        ),
        _table(
            "models",
            ("model_id",),
            {
                "model_id": _STRING,
                "task": _STRING,
                "path": _STRING,
                "base": _STRING,
                "recipe": _STRING,
                "read_versions": _COUNTS,
                "rows": pa.int64(),
                "steps": pa.int64(),
                "metrics": pa.map_(_STRING, pa.float64()),
                "history": pa.list_(
                    pa.struct([("step", pa.int64()), ("name", _STRING), ("value", pa.float64())])
                ),
                "created": _TIME,
                "run_id": _STRING,
            },
        ),
        _table(
            "pairs",
            ("pairing", "group_id", "round", "a", "b"),
            {
                "pairing": _STRING,
                "group_id": _STRING,
                "round": pa.int64(),
                "a": _STRING,
                "b": _STRING,
                "run_id": _STRING,
            },
            partition_by=("pairing",),
        ),
        _table(
            "judgements",
            ("judgement_id",),
            {
                "judgement_id": _STRING,
                "kind": _STRING,
                "group_id": _STRING,
                "items": pa.list_(
                    pa.struct([("id", _STRING), ("position", pa.int64()), ("score", pa.float64())])
                ),
                "criterion": _STRING,
                "judge": _STRING,
                "raw": _STRING,
                "run_id": _STRING,
                "prompt_tokens": pa.int64(),
                "output_tokens": pa.int64(),
            },
            partition_by=("judge",),
        ),
        _table(
            "selections",
            ("selection", "pool", "sample_id"),
            {
                "selection": _STRING,
                "pool": _STRING,
                "sample_id": _STRING,
                "rank": pa.int64(),
                "score": pa.float64(),
                "reason": _STRING,
                "run_id": _STRING,
                "nearest": _STRING,
                "similarity": pa.float64(),
            },
            partition_by=("selection",),
        ),
        _table(
            "mixtures",
            ("mixture", "position"),
            {
                "mixture": _STRING,
                "position": pa.int64(),
                "pool": _STRING,
                "sample_id": _STRING,
                "copy": pa.int64(),
                "part": _STRING,
                "run_id": _STRING,
            },
            partition_by=("mixture",),
        ),
        _table(
            "rejects",
            ("run_id", "step", "source", "source_row"),
            {
                "run_id": _STRING,
                "step": _STRING,
                "source": _STRING,
                "source_row": pa.int64(),
                "sample_id": _STRING,
                "reason": _STRING,
                "payload": pa.binary(),
                "payload_bytes": pa.int64(),
                "pool": _STRING,
            },
        ),
        _table(
            "quarantine",
            ("run_id", "step", "key"),
            {
                "run_id": _STRING,
                "step": _STRING,
                "key": _STRING,
                "reason": _STRING,
                "error": _STRING,
                "payload": pa.binary(),
                "resolved_by": _STRING,
            },
        ),
        _table(
            "runs",
            ("run_id", "step"),
            {
                "run_id": _STRING,
                "step": _STRING,
                "recipe": _STRING,
                "status": _STRING,
                "unit": _STRING,
                "started": _TIME,
                "ended": _TIME,
                "input": pa.int64(),
                "kept": pa.int64(),
                "known": pa.int64(),
                "rejected": _COUNTS,
                "quarantined": _COUNTS,
                "read": _COUNTS,
                "written": _COUNTS,
                "metrics": pa.map_(_STRING, pa.float64()),
                "fingerprint": _STRING,
                "error": _STRING,
            },
        ),
    )
}

WHOLE = -1
"""The `turn` of a score that is of the whole conversation."""

PAYLOAD_BYTES = 64 * 1024
"""Longest payload kept with a rejected or quarantined row; `payload_bytes` has the full length."""


def absolute(place: str) -> str:
    """A folder as every process sees it: a URI as it is, a local path without its `~` and dots."""
    return place if urlsplit(place).scheme else str(Path(place).expanduser().absolute())


def check_scheme(setting: str, place: str) -> None:
    """Raise UsageError for a URI of a kind that is unknown, or whose package is not installed."""
    if "://" not in place:
        return
    import fsspec

    scheme = urlsplit(place).scheme
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        mend = ": pip install 'tagsieve[s3]'" if scheme in ("s3", "s3a") else ""
        raise UsageError(f"{setting}={place}: cannot be reached: {error}{mend}") from error


class Lake:
    """All tables below one root, a local path or an object store URI (`s3://bucket/lake`)."""

    def __init__(self, root: str) -> None:
        self.root = absolute(root)

    def uri(self, name: str) -> str:
        """Where table `name` lies."""
        return f"{self.root.rstrip('/')}/{TABLES[name].name}"

    def spark_uri(self, path: str) -> str:
        """`path` as Spark's Hadoop file systems spell it (s3a for s3)."""
        return path.replace("s3://", "s3a://", 1) if path.startswith("s3://") else path

    def work_uri(self, run_id: str, name: str) -> str:
        """A folder for data handed from one engine to another within run `run_id`."""
        return f"{self.root.rstrip('/')}/_work/{run_id}/{name}"

    @contextmanager
    def working(self, run_id: str) -> Iterator[None]:
        """Removes, after the block, what run `run_id` handed from engine to engine in it."""
        try:
            yield
        except BaseException as failure:
            with noted_on(failure):
                self._drop_work(run_id)
            raise
        self._drop_work(run_id)

    def _drop_work(self, run_id: str) -> None:
        import fsspec

        files, folder = fsspec.core.url_to_fs(f"{self.root.rstrip('/')}/_work/{run_id}")
        if files.exists(folder):
            files.rm(folder, recursive=True)

    # --- what is there -------------------------------------------------------------------------

    def delta(self, name: str, version: int | None = None) -> DeltaTable | None:
        """The delta-rs handle of table `name`, None where it is not there yet.

        Raises RunError when the table was made by a newer tagsieve, by another tool, or carries
        a Delta feature that delta-rs cannot read.
        """
        try:
            table = DeltaTable(self.uri(name), version=version)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise RunError(f"lake {self.root}: table {name} cannot be opened: {error}") from error
        self._check(name, table)
        return table

    def _check(self, name: str, table: DeltaTable) -> None:
        made_by = table.metadata().configuration.get(FORMAT_PROPERTY)
        if made_by is None:
            raise RunError(
                f"lake {self.root}: {name} is a Delta table that tagsieve did not make; "
                "set lake to a folder of its own"
            )
        if int(made_by) > FORMAT:
            raise RunError(
                f"lake {self.root}: {name} has layout {made_by}, this tagsieve knows up to "
                f"{FORMAT}; upgrade tagsieve, or set lake to another folder"
            )
        protocol = table.protocol()
        features = {*(protocol.reader_features or []), *(protocol.writer_features or [])}
        refused = sorted(str(f) for f in features if str(f) not in _READABLE_FEATURES)
        if refused or (protocol.min_reader_version > 1 and not features):
            raise RunError(
                f"lake {self.root}: {name} has Delta features that Ray workers cannot read "
                f"({', '.join(refused) or f'reader {protocol.min_reader_version}'}); "
                "drop them with ALTER TABLE ... DROP FEATURE"
            )

    def version(self, name: str) -> int | None:
        """The newest version of table `name`, None where it is not there yet."""
        table = self.delta(name)
        return None if table is None else table.version()

    def tables(self) -> list[str]:
        """Names of the tables that are there."""
        return [name for name in TABLES if self.delta(name) is not None]

    def create(self, name: str) -> DeltaTable:
        """The delta-rs handle of table `name`, created empty where it is not there yet."""
        table = TABLES[name]
        existing = self.delta(name)
        if existing is not None:
            there = {field.name for field in existing.schema().fields}
            added = [field for field in table.schema if field.name not in there]
            if added:  # made by an earlier tagsieve, whose rows have no value there
                fields = pa.schema([field.with_nullable(True) for field in added])
                existing.alter.add_columns(Schema.from_arrow(fields).fields)
            return existing
        try:
            if not urlsplit(self.root).scheme:
                Path(self.uri(name)).mkdir(parents=True, exist_ok=True)
            DeltaTable.create(
                self.uri(name),
                schema=table.schema,
                mode="ignore",
                partition_by=list(table.partition_by) or None,
                configuration={FORMAT_PROPERTY: str(FORMAT), **KEEP_LOG},
                raise_if_key_not_exists=False,
            )
        except (DeltaError, OSError) as error:
            raise RunError(f"lake {self.root}: cannot create table {name}: {error}") from error
        created = self.delta(name)
        assert created is not None
        return created

    # --- reads ---------------------------------------------------------------------------------

    def arrow(
        self,
        name: str,
        columns: list[str] | None = None,
        filters: list[tuple[str, str, Any]] | None = None,
    ) -> pa.Table:
        """Rows of a table that fits in memory (`runs`, `ontology_versions`, a report's sample);
        no rows where the table is not there yet."""
        table = self.delta(name)
        if table is None:
            empty = TABLES[name].schema.empty_table()
            return empty if columns is None else empty.select(columns)
        there = {field.name for field in table.schema().fields}
        wanted = columns or TABLES[name].schema.names
        rows = table.to_pyarrow_table(columns=[c for c in wanted if c in there], filters=filters)
        for column in wanted:  # a table that an earlier tagsieve made may lack some
            if column not in there:
                kind = TABLES[name].schema.field(column).type
                rows = rows.append_column(column, pa.nulls(rows.num_rows, kind))
        return rows.select(wanted)

    def run_of(self, name: str, column: str, value: str) -> str | None:
        """The run that wrote the rows of table `name` whose `column` is `value`; None: no rows."""
        table = self.delta(name)
        if table is None:
            return None
        rows = table.to_pyarrow_dataset().head(
            1, columns=["run_id"], filter=pa.dataset.field(column) == value
        )
        return str(rows["run_id"][0]) if rows.num_rows else None

    def read(self, spark: SparkSession, name: str, version: int | None = None) -> DataFrame:
        """Table `name` for Spark, at `version` (default: newest; -1: not there yet, so no rows)."""
        if version == -1 or self.version(name) is None:
            from pyspark.sql.pandas.types import from_arrow_schema

            return spark.createDataFrame([], from_arrow_schema(TABLES[name].schema))
        from pyspark.sql import functions as F
        from pyspark.sql.pandas.types import from_arrow_type

        reader = spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        rows = reader.load(self.spark_uri(self.uri(name)))
        # A version that an earlier tagsieve wrote may lack columns.
        lacking = [f for f in TABLES[name].schema if f.name not in rows.columns]
        return rows.withColumns(
            {f.name: F.lit(None).cast(from_arrow_type(f.type)) for f in lacking}
        ).select(*TABLES[name].schema.names)

    # --- commits -------------------------------------------------------------------------------

    def append_once(self, name: str, rows: pa.Table, app_id: str, app_version: int) -> bool:
        """Append `rows` unless (`app_id`, `app_version`) was committed before; True if appended.

        delta-rs does not refuse a repeated pair, so it is looked up first and committed through
        the same handle: a writer that got in between makes the commit conflict, not repeat.
        """
        table = self.create(name)
        done = table.transaction_version(app_id)
        if done is not None and done >= app_version:
            return False
        self._append(table, name, rows, Transaction(app_id, app_version))
        return True

    def commits_of(self, name: str, app_id: str) -> int:
        """How many commits of `append_next` the application `app_id` has made to table `name`."""
        table = self.delta(name)
        return 0 if table is None else table.transaction_version(app_id) or 0

    def append_next(self, name: str, rows: pa.Table, app_id: str, commits: int) -> int:
        """Append `rows` as commit number `commits` + 1 of `app_id`; gives that number.

        Raises RunError when someone else committed under this `app_id` since: of two that append
        the same work at the same time, only one can go on.
        """
        table = self.create(name)
        found = table.transaction_version(app_id) or 0
        lost = RunError(
            f"lake {self.root}: another run committed to {name} under {app_id!r} meanwhile, so "
            "this one stops and repeats nothing; run again when the other has ended"
        )
        if found != commits:
            raise lost
        try:
            self._append(table, name, rows, Transaction(app_id, commits + 1))
        except CommitFailedError as error:
            if self.commits_of(name, app_id) == commits:
                raise RunError(f"lake {self.root}: cannot commit to {name}: {error}") from error
            raise lost from error
        return commits + 1

    def _append(
        self, table: DeltaTable, name: str, rows: pa.Table, transaction: Transaction
    ) -> None:
        write_deltalake(
            table,
            rows.select(TABLES[name].schema.names).cast(TABLES[name].schema),
            mode="append",
            # A newer tagsieve may have added columns, which are null then.
            schema_mode="merge",
            commit_properties=CommitProperties(app_transactions=[transaction]),
        )

    def upsert(self, name: str, rows: pa.Table) -> None:
        """Insert or update a few rows by key (`runs`); a lost race is tried again."""
        key = " AND ".join(f"old.{column} = new.{column}" for column in TABLES[name].key)

        def commit() -> None:
            merge = self.create(name).merge(
                rows.cast(TABLES[name].schema), key, source_alias="new", target_alias="old"
            )
            merge.when_matched_update_all().when_not_matched_insert_all().execute()

        self._tried_again(name, "written to", commit, CommitFailedError)

    def _tried_again(
        self,
        name: str,
        done: str,
        commit: Callable[[], _Given],
        lost: type[Exception] | tuple[type[Exception], ...],
    ) -> _Given:
        """What `commit` gives. One that loses a race (raises `lost`) is tried again after random
        waits that grow to five seconds, five times and for a minute at least; then RunError:
        table `name` cannot be `done`."""
        from tenacity import (
            Retrying,
            retry_if_exception_type,
            stop_after_attempt,
            stop_after_delay,
            stop_all,
            wait_random_exponential,
        )

        retrying = Retrying(
            retry=retry_if_exception_type(lost),
            wait=wait_random_exponential(multiplier=0.1, min=0.05, max=5),
            stop=stop_all(stop_after_attempt(5), stop_after_delay(PATIENCE)),
            reraise=True,
        )
        try:
            return retrying(commit)
        except lost as error:
            why = str(error).strip().split("\n", 1)[0]
            raise RunError(
                f"lake {self.root}: {name} cannot be {done} while others change it ({why}); run "
                "again when they have ended"
            ) from error

    def append(
        self, frame: DataFrame, name: str, transaction: tuple[str, int] | None = None
    ) -> None:
        """Append a Spark frame (its columns are picked by name).

        `transaction`: an application and the number of its commit, as of `append_next`; nothing is
        written when that number is there already.
        """
        writer = self._writer(frame, name).mode("append")
        if transaction is not None:
            app_id, number = transaction
            writer = writer.option("txnAppId", app_id).option("txnVersion", number)
        writer.save(self.spark_uri(self.uri(name)))

    def insert_new(self, frame: DataFrame, name: str, where: Where) -> int:
        """Append the rows of a Spark frame whose key is not in the table; gives their number.

        One insert-only MERGE: two writers at the same time cannot both insert a key, one of them
        is tried again, so a frame that is dear to compute should be stored. Within `frame` each
        key must be unique. `where`: values of partition columns that all its rows have; who
        writes rows with others is not in the way.
        """
        columns = TABLES[name].schema.names
        key = [f"old.{column} = new.{column}" for column in TABLES[name].key]
        condition = " AND ".join([_condition(where, "old."), *key])

        def merge(table: Any) -> Any:
            merging = table.alias("old").merge(frame.select(*columns).alias("new"), condition)
            # Named: a table that an earlier tagsieve made may have columns that are no more.
            return merging.whenNotMatchedInsert(values={c: f"new.{c}" for c in columns})

        return self._merged(frame.sparkSession, name, merge)["num_inserted_rows"]

    def resolve(self, keys: DataFrame, run_id: str, spare_own: bool) -> None:
        """Set `resolved_by` of the open quarantine rows with these `key` (distinct) to `run_id`; a
        lost race is tried again.

        `spare_own`: leave the rows open that this run itself put there.
        """
        from pyspark.sql import functions as F

        still_open = F.col("old.resolved_by").isNull()
        if spare_own:
            still_open &= F.col("old.run_id") != run_id

        def merge(table: Any) -> Any:
            merging = table.alias("old").merge(keys.alias("new"), "old.key = new.key")
            return merging.whenMatchedUpdate(still_open, {"resolved_by": F.lit(run_id)})

        self._merged(keys.sparkSession, "quarantine", merge)

    def _merged(
        self, spark: SparkSession, name: str, merge: Callable[[Any], Any]
    ) -> dict[str, int]:
        """What a MERGE of Spark did, in numbers of rows; one that loses a race is tried again.

        `merge`: gives the MERGE of a table's Spark handle.
        """
        from delta import exceptions
        from delta.exceptions import captured  # noqa: F401  has Spark raise them
        from delta.tables import DeltaTable as SparkDeltaTable

        def commit() -> dict[str, int]:
            self.create(name)
            table = SparkDeltaTable.forPath(spark, self.spark_uri(self.uri(name)))
            told: dict[str, int] = merge(table).execute().first().asDict()
            return told

        lost = tuple(getattr(exceptions, each) for each in exceptions.__all__)
        return self._tried_again(name, "written to", commit, lost)

    def replace(self, frame: DataFrame, name: str, where: Where) -> None:
        """Put the rows of a Spark frame in place of those that have the values of `where`, in one
        commit: of partitions, or of files that hold no other rows."""
        writer = self._writer(frame, name).mode("overwrite")
        writer = writer.option("replaceWhere", _condition(where))
        writer.save(self.spark_uri(self.uri(name)))

    def _writer(self, frame: DataFrame, name: str) -> Any:
        self.create(name)
        return frame.select(*TABLES[name].schema.names).write.format("delta")

    # --- maintenance ---------------------------------------------------------------------------

    def files(self, name: str) -> list[DataFile]:
        """The files of the newest version of table `name`."""
        table = self._there(name)
        columns = TABLES[name].partition_by
        return [
            DataFile(row["path"], row["size_bytes"], {c: row[f"partition.{c}"] for c in columns})
            for row in pa.table(table.get_add_actions(flatten=True)).to_pylist()
        ]

    def stored(self, name: str) -> dict[str, int]:
        """File name -> size of every data file that lies in table `name`, of whatever version."""
        import fsspec

        files, folder = fsspec.core.url_to_fs(self.uri(name))
        found = files.find(folder, detail=True)
        return {
            _file_name(path): told["size"]
            for path, told in found.items()
            if "/_delta_log/" not in path
        }

    def keeps_log(self, name: str) -> bool:
        """Whether the log of old versions of table `name` is kept; not in one that an earlier
        tagsieve made."""
        there = self._there(name).metadata().configuration
        return all(there.get(key) == value for key, value in KEEP_LOG.items())

    def keep_log(self, name: str) -> None:
        """Have the log of old versions kept. Makes a concurrent commit to the table fail."""
        try:
            self._there(name).alter.set_table_properties(KEEP_LOG, raise_if_not_exists=False)
        except DeltaError as error:
            raise RunError(f"lake {self.root}: {name} cannot be altered: {error}") from error

    def compact(self, name: str, partition: Mapping[str, str], target_bytes: int) -> None:
        """Put the small files of one partition together; a lost race is tried again.

        RunError when there are more rows than before: delta-rs lets two compactions of the same
        files commit, and loses track of files with some names.
        """
        where = [(column, "=", value) for column, value in partition.items()]

        def commit() -> tuple[int, int]:
            table = self._there(name)
            first = table.version() + 1
            table.optimize.compact(
                partition_filters=where or None,
                target_size=target_bytes,
                writer_properties=WriterProperties(compression="ZSTD"),
            )
            return first, table.version()

        try:
            first, last = self._tried_again(name, "compacted", commit, CommitFailedError)
        except (DeltaError, OSError) as error:
            raise RunError(f"lake {self.root}: {name} cannot be compacted: {error}") from error
        for version in range(first, last + 1):
            if self._operation(name, version) == "OPTIMIZE":
                was, now = (DeltaTable(self.uri(name), v).count() for v in (version - 1, version))
                if was != now:
                    raise RunError(
                        f"lake {self.root}: {name} has {now} rows in version {version}, made by "
                        f"compaction, and {was} before; please report this, and put it back with "
                        f"DeltaTable({self.uri(name)!r}).restore({version - 1})"
                    )

    def _operation(self, name: str, version: int) -> str | None:
        """What made a version.

        Not from `DeltaTable.history`: while others commit, it gives versions that are one off.
        """
        import fsspec

        files, place = fsspec.core.url_to_fs(f"{self.uri(name)}/_delta_log/{version:020}.json")
        for line in files.cat_file(place).splitlines():
            told = json.loads(line).get("commitInfo")
            if told:
                return str(told.get("operation"))
        return None

    def vacuum(
        self, name: str, hours: int, versions: Iterable[int], dry_run: bool
    ) -> dict[str, int]:
        """Remove files that are of no version in `versions`, of none of the last `hours` and not
        of the newest; gives their names and bytes.

        Full mode, since a file that was pinned long is no longer told by the log when it is
        released. delta-rs calls its `keep_versions` experimental: what it would remove is compared
        with the files of each version first. It also lists, and commits, what it removed before.
        """
        table = self._there(name)
        since = DeltaTable(self.uri(name))
        try:
            since.load_as_version(datetime.now(UTC) - timedelta(hours=hours))
            # A version above the newest one is of a table that was made anew.
            keep = sorted({v for v in (*versions, since.version()) if v <= table.version()})
            needed = {_file_name(uri) for uri in table.file_uris()}
            for version in keep:
                at = DeltaTable(self.uri(name), version=version)
                needed |= {_file_name(uri) for uri in at.file_uris()}

            def run(dry: bool) -> list[str]:
                names: list[str] = table.vacuum(
                    retention_hours=hours,
                    dry_run=dry,
                    enforce_retention_duration=False,
                    full=True,
                    keep_versions=keep,
                )
                return names

            listed = run(True)
            wrong = needed.intersection(map(_file_name, listed))
            if wrong:
                raise RunError(
                    f"lake {self.root}: vacuum of {name} would remove {len(wrong)} files that a "
                    f"pinned version needs, such as {min(wrong)}; nothing was removed. Please "
                    "report this"
                )
            stored = self.stored(name)
            going = {file: stored[file] for file in map(_file_name, listed) if file in stored}
            if going and not dry_run:
                run(False)
        except (DeltaError, OSError) as error:
            raise RunError(f"lake {self.root}: {name} cannot be vacuumed: {error}") from error
        return going

    def checkpoint(self, name: str, commits: int) -> bool:
        """Write a checkpoint unless the last one is less than `commits` old; True if written."""
        import fsspec

        table = self._there(name)
        files, place = fsspec.core.url_to_fs(f"{self.uri(name)}/_delta_log/_last_checkpoint")
        last = json.loads(files.cat_file(place))["version"] if files.exists(place) else -1
        if table.version() - last < commits:
            return False
        try:
            table.create_checkpoint()
        except (DeltaError, OSError) as error:
            raise RunError(
                f"lake {self.root}: no checkpoint of {name} can be written: {error}"
            ) from error
        return True

    def _there(self, name: str) -> DeltaTable:
        table = self.delta(name)
        if table is None:
            raise RunError(f"lake {self.root}: table {name} is gone")
        return table


@dataclass(frozen=True)
class DataFile:
    """A data file of a table: its path in the log, its bytes, its partition's values."""

    path: str
    size: int
    partition: dict[str, str]


def _condition(where: Where, table: str = "") -> str:
    """The rows that have the values of `where`, as SQL has it."""
    return " AND ".join(
        f"{table}{column} IN ({', '.join(map(_literal, value))})"
        if isinstance(value, list)
        else f"{table}{column} = {_literal(value)}"
        for column, value in where.items()
    )


def _literal(value: str | int) -> str:
    """A value as SQL has it."""
    if isinstance(value, int):
        return str(value)
    return "'{}'".format(value.replace("\\", "\\\\").replace("'", "\\'"))


def _file_name(path: str) -> str:
    """The last part of a path: unique in a table, and the same however the path is encoded."""
    return path.rsplit("/", 1)[-1]


def rows_table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Python rows as an Arrow table with the schema of table `name`; missing columns are null."""
    schema = TABLES[name].schema
    filled = [{column: row.get(column) for column in schema.names} for row in rows]
    return pa.Table.from_pylist(filled, schema=schema)
