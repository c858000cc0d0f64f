"""The actors that score: groups of variants in, judgements out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from tagsieve.engines.actors import ActorSpec, Counts
from tagsieve.engines.config import RayConfig
from tagsieve.engines.llm.asking import llm_actors, llm_engine
from tagsieve.engines.llm.replies import ENGINE_DIED, Answer, NotAsked, Refusal
from tagsieve.engines.llm.verdicts import closed
from tagsieve.engines.microbatch import FAILURE, failure
from tagsieve.evolving.config import EvolveConfig, EvolveVllmConfig
from tagsieve.evolving.prompts import judge_fingerprint, judge_prompt
from tagsieve.evolving.replies import INCOMPLETE, SCORES, read_scores, shown_order
from tagsieve.lake import TABLES

JUDGED = TABLES["judgements"].schema.append(pa.field("failure", FAILURE))


def judges_of(config: EvolveConfig, run_id: str, ray_config: RayConfig) -> ActorSpec:
    """The actors that score."""
    judge = judge_fingerprint(config)
    killed_by = partial(_killed, judge)
    kwargs = {"config": config, "judge": judge, "run_id": run_id}
    return llm_actors(config.ranker, Judge, kwargs, killed_by, "evolve", ray_config)


def _killed(judge: str, row: pa.Table, error: str) -> pa.Table:
    """The result for a group of which the engine dies."""
    asked = row.to_pylist()[0]
    told = failure(judge, asked["judgement_id"], ENGINE_DIED, error, asked["instruction"])
    failed = {"judgement_id": asked["judgement_id"], "failure": told}
    return pa.Table.from_pylist([failed], schema=JUDGED)


class Judge:
    """A Ray actor. Reads `judgement_id`, `seed_id`, `instruction`, and of the variants in the order
    of their rounds `ids` and `texts`; gives the rows of `judgements` and `failure`.

    A row that was not asked, because the budget is spent, is left out.
    """

    def __init__(self, config: EvolveConfig, judge: str, run_id: str) -> None:
        self._config, self._judge, self._run_id = config, judge, run_id
        local = isinstance(config.ranker, EvolveVllmConfig)
        schema = scores_schema(config.rounds + 1, local)
        setting = "evolve.generator" if config.judge is None else "evolve.judge"
        self._engine = llm_engine(config.ranker, judge_prompt(config), schema, None, setting)

    async def start(self, counted: Counts) -> None:
        """Load the model, or open the client."""
        await self._engine.start(counted)

    async def run(self, batch: pa.Table) -> tuple[pa.Table, dict[str, float]]:
        """One row per group that was asked about, in the order of the batch, and the counts."""
        asked = batch.to_pylist()
        orders = [shown_order(row["judgement_id"], row["ids"]) for row in asked]
        answers, counts = await self._engine.answer(
            [_shown(row, order) for row, order in zip(asked, orders, strict=True)]
        )
        rows = [
            self._row(row, order, answer)
            for row, order, answer in zip(asked, orders, answers, strict=True)
            if not isinstance(answer, NotAsked)
        ]
        return pa.Table.from_pylist(rows, schema=JUDGED), counts

    def _row(self, asked: dict[str, Any], order: Sequence[int], answer: Answer) -> dict[str, Any]:
        key = asked["judgement_id"]
        if isinstance(answer, Refusal):
            told = failure(self._judge, key, answer.reason, answer.error, asked["instruction"])
            return {"judgement_id": key, "failure": told}
        assert not isinstance(answer, NotAsked)
        scores, error = read_scores(answer.text, len(order))
        if error is not None:
            told = failure(self._judge, key, INCOMPLETE, error, answer.text)
            return {"judgement_id": key, "failure": told}
        # `order[position]` is the index of the variant that was shown there.
        shown = sorted(zip(order, range(len(order)), scores, strict=True))
        return {
            "judgement_id": key,
            "kind": "rank",
            "group_id": asked["seed_id"],
            "items": [
                {"id": asked["ids"][index], "position": position, "score": float(score)}
                for index, position, score in shown
            ],
            "criterion": self._config.what,
            "judge": self._judge,
            "raw": answer.text,
            "run_id": self._run_id,
            "prompt_tokens": answer.prompt_tokens,
            "output_tokens": answer.output_tokens,
        }


def _shown(row: dict[str, Any], order: Sequence[int]) -> dict[str, str]:
    """The fields of a judge's prompt, with the variants in the order of `order`."""
    variants = [
        f"<variant {number}>\n{row['texts'][index]}\n</variant {number}>"
        for number, index in enumerate(order, start=1)
    ]
    return {
        "instruction": row["instruction"],
        "variants": "\n\n".join(variants),
        "count": str(len(order)),
    }


def scores_schema(count: int, local: bool) -> dict[str, Any]:
    """JSON Schema of a judge's answer, for engines that can hold a model to it. `local`: with the
    length of the list, which vendors of endpoints do not take."""
    variant = {"type": "integer", "enum": list(range(1, count + 1))}
    item = closed({"variant": variant, "score": {"type": "integer", "enum": list(SCORES)}})
    limits = {"minItems": count, "maxItems": count} if local else {}
    return closed({"scores": {"type": "array", "items": item, **limits}})
