"""The actors that evolve: parents in, variants out."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa

from tagsieve.engines.actors import ActorSpec, Counts
from tagsieve.engines.config import RayConfig
from tagsieve.engines.llm.asking import llm_actors, llm_engine
from tagsieve.engines.llm.replies import ENGINE_DIED, Answer, NotAsked, Refusal
from tagsieve.engines.microbatch import FAILURE, failure
from tagsieve.evolving.config import EvolveConfig
from tagsieve.evolving.prompts import generator_fingerprint, generator_prompt
from tagsieve.evolving.replies import read_variant
from tagsieve.lake import TABLES
from tagsieve.ledger import fingerprint

GENERATED = TABLES["generations"].schema.append(pa.field("failure", FAILURE))


def generators_of(config: EvolveConfig, run_id: str, ray_config: RayConfig) -> ActorSpec:
    """The actors that evolve."""
    generator = generator_fingerprint(config)
    killed_by = partial(_killed, generator)
    kwargs = {"config": config, "generator": generator, "run_id": run_id}
    return llm_actors(config.generator, Evolver, kwargs, killed_by, "evolve", ray_config)


def _killed(generator: str, row: pa.Table, error: str) -> pa.Table:
    """The result for a parent of which the engine dies."""
    asked = row.to_pylist()[0]
    told = failure(generator, asked["generation_id"], ENGINE_DIED, error, asked["text"])
    failed = {"generation_id": asked["generation_id"], "failure": told}
    return pa.Table.from_pylist([failed], schema=GENERATED)


class Evolver:
    """A Ray actor. Reads `generation_id`, `parent_id`, `seed_id`, `round`, `operator`,
    `instruction` and `text` (the parent); gives the rows of `generations` and `failure`.

    A row that was not asked, because the budget is spent, is left out.
    """

    def __init__(self, config: EvolveConfig, generator: str, run_id: str) -> None:
        self._config, self._generator, self._run_id = config, generator, run_id
        self._template = template = generator_prompt(config)
        # Nothing of a parent is cut: what is left of it would be another text.
        self._engine = llm_engine(config.generator, template, None, None, "evolve.generator")
        self._prompt_ids = {
            name: f"{template.name}-{name}-{fingerprint(template.content, name)[:12]}"
            for name in template.operators
        }

    async def start(self, counted: Counts) -> None:
        """Load the model, or open the client."""
        await self._engine.start(counted)

    async def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """One row per parent that was asked about, in the order of the batch, and the counts."""
        asked = batch.to_pylist()
        answers, counts = await self._engine.answer([self._fields(row) for row in asked])
        rows = [
            self._row(row, answer)
            for row, answer in zip(asked, answers, strict=True)
            if not isinstance(answer, NotAsked)
        ]
        return pa.Table.from_pylist(rows, schema=GENERATED), counts

    def _fields(self, row: dict[str, Any]) -> dict[str, str]:
        operator = self._template.operators[row["operator"]]
        if self._config.what == "complexity":
            return {"instruction": row["text"], "operator": operator}
        return {
            "instruction": row["instruction"],
            "response": row["text"],
            "operator": operator,
        }

    def _row(self, asked: dict[str, Any], answer: Answer) -> dict[str, Any]:
        key = asked["generation_id"]
        if isinstance(answer, Refusal):
            told = failure(self._generator, key, answer.reason, answer.error, asked["text"])
            return {"generation_id": key, "failure": told}
        assert not isinstance(answer, NotAsked)
        text, reason = read_variant(answer, asked["text"], self._config.max_chars)
        if reason is not None:
            told = failure(self._generator, key, reason, text, answer.text)
            return {"generation_id": key, "failure": told}
        return {
            "generation_id": key,
            "kind": f"evol_{self._config.what}",
            "prompt_id": self._prompt_ids[asked["operator"]],
            "parent_id": asked["parent_id"],
            "model": self._generator,
            "text": text,
            "run_id": self._run_id,
            "seed_id": asked["seed_id"],
            "round": asked["round"],
            "operator": asked["operator"],
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
        }
