"""A model's answers to test sets: each distinct question is asked once, and each test set whose
questions all have answers gets a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fsspec
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tagsieve.engines.config import RayConfig
from tagsieve.engines.context import Context
from tagsieve.engines.microbatch import Writer
from tagsieve.engines.pending import do_pending
from tagsieve.engines.quarantine import quarantined, try_again
from tagsieve.errors import RunError
from tagsieve.evaluating.answering import QUESTION, Model
from tagsieve.evaluating.config import EvaluateAnswersConfig
from tagsieve.lease import lease
from tagsieve.page import write_text
from tagsieve.test_sets.reading import read_questions

GENERATION_ID = "generation_id"


class AnswersTask:
    """As a `Task`. The test sets and the answers are held in memory."""

    unit = "question"
    reads: Sequence[str] = ()
    writes: Sequence[str] = ("generations", "quarantine")

    def __init__(self, config: EvaluateAnswersConfig) -> None:
        self._config = config
        self.model = Model.of(config.engine, config.prompt)
        # test set -> line -> question
        self._asked: dict[str, dict[int, str]] = {each.name: {} for each in config.test_sets}
        for row in read_questions(config.test_sets, "evaluate").to_pylist():
            self._asked[row["test_set"]][row["question"]] = row["text"]

    def check(self, ray_config: RayConfig) -> None:
        """Refuse what an embedded Ray can be seen to lack. Raises UsageError."""
        self.model.check(ray_config)

    def ask(self, context: Context) -> None:
        """Have those questions answered that have no answer yet and do not lie in quarantine."""
        run, model = context.run, self.model.fingerprint
        with lease(context.lake, f"answer-{model}", run.run_id):
            writer = self._writer(context)
            questions = self._questions(context)
            total = questions.count()
            seen = self._answered(context).unionByName(quarantined(context, model, GENERATION_ID))
            lacking = questions.join(seen, GENERATION_ID, "left_anti")

            def found(count: int) -> None:
                run.known = 0 if context.limit is not None else total - count
                run.input = run.known + count

            self._do(context, writer, lacking, found)

    def ask_again(self, context: Context, reasons: Sequence[str]) -> None:
        """Ask those questions that lie in quarantine, for any of `reasons` (none: for all), as
        `engines.quarantine.try_again` says."""
        with lease(context.lake, f"answer-{self.model.fingerprint}", context.run.run_id):
            writer = self._writer(context)
            try_again(
                context,
                self.model.fingerprint,
                GENERATION_ID,
                self._questions(context),
                lambda: self._answered(context),
                lambda lacking: self._do(context, writer, lacking),
                reasons,
            )

    def tell(self, context: Context) -> None:
        """Write the file of each test set whose questions all have answers; remove that of an
        earlier run where some lack."""
        config, answers = self._config, self._answers(context)
        files, folder = fsspec.core.url_to_fs(f"{config.path.rstrip('/')}/{config.name}")
        whole = []
        for name, asked in self._asked.items():
            path = f"{folder}/{name}.jsonl"
            lacking = sum(text not in answers for text in asked.values())
            if not lacking:
                write_text("evaluate.path", files, path, _lines(asked, answers))
                whole.append(name)
                continue
            _remove(files, path)
            context.console.line(
                f"{name}: {lacking:,} of {len(asked):,} questions lack an answer, so it has no "
                "file; `tagsieve replay RECIPE --step evaluate` tries those in quarantine again"
            )
        if whole:
            context.console.line(f"answers  {folder}/{{test_set}}.jsonl: {', '.join(whole)}")

    def _questions(self, context: Context) -> DataFrame:
        """`QUESTION`, each distinct one once."""
        distinct = {text for asked in self._asked.values() for text in asked.values()}
        rows = [
            {GENERATION_ID: self.model.generation_id(text), "text": text}
            for text in sorted(distinct)
        ]
        return context.engines.spark.createDataFrame(pa.Table.from_pylist(rows, schema=QUESTION))

    def _writer(self, context: Context) -> Writer:
        return Writer(context.lake, "generations", f"answer {self.model.fingerprint}")

    def _answered(self, context: Context) -> DataFrame:
        """`generation_id` of what the model has answered."""
        rows = context.lake.read(context.engines.spark, "generations")
        return rows.where(F.col("model") == self.model.fingerprint).select(GENERATION_ID)

    def _do(
        self,
        context: Context,
        writer: Writer,
        lacking: DataFrame,
        found: Callable[[int], None] = lambda count: None,  # noqa: ARG005
    ) -> int:
        if context.limit is not None:
            lacking = lacking.orderBy(GENERATION_ID).limit(context.limit)
        context.engines.ray()
        spec = self.model.actors(context.run.run_id, context.engines.ray_config)
        engine = self._config.engine
        return do_pending(context, spec, engine, writer, lacking, "questions", found)

    def _answers(self, context: Context) -> dict[str, str]:
        """Question -> answer, of those that have one."""
        model = self.model
        rows = context.lake.arrow(
            "generations", [GENERATION_ID, "text"], filters=[("model", "=", model.fingerprint)]
        )
        texts = dict(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))
        distinct = {text for asked in self._asked.values() for text in asked.values()}
        keys = {text: model.generation_id(text) for text in distinct}
        return {text: texts[key] for text, key in keys.items() if key in texts}


def _lines(asked: Mapping[int, str], answers: Mapping[str, str]) -> str:
    """A file with the answer to each question in the question's line; lines in between are blank,
    as they are in the test set."""
    lines = [""] * (max(asked) + 1)
    for number, question in asked.items():
        told = {"question": question, "output": answers[question]}
        lines[number] = json.dumps(told, ensure_ascii=False)
    return "\n".join([*lines, ""])


def _remove(files: Any, path: str) -> None:
    try:
        if files.exists(path):
            files.rm(path)
    except OSError as error:
        raise RunError(f"evaluate.path={path}: cannot be removed: {error}") from error
