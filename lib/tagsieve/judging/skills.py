"""Models by single skills: each answer scored 1 to 5 by the skills that its question needs (FLASK,
as "Demystifying Instruction Mixing" evaluates alignment)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tagsieve.engines.context import Context
from tagsieve.errors import UsageError
from tagsieve.judging.asking import Asker
from tagsieve.judging.charts import radar
from tagsieve.judging.config import JudgeSkillsConfig
from tagsieve.judging.work import Wanted, answer_id, judgement_id, scores_of, wanted_in_memory
from tagsieve.page_sections import Section, write_report
from tagsieve.test_sets.reading import read_answers


class SkillsTask:
    """As a `Task`. The test sets, the answers and the scores are held in memory."""

    reads: Sequence[str] = ()
    identity = None

    def __init__(self, config: JudgeSkillsConfig) -> None:
        self._config = config
        self._asker = Asker.of("skills", config.engine, config.prompt, "judge.engine")
        asked = read_answers(config.test_sets, config.answers, config.skills).to_pylist()
        labels = [list(dict.fromkeys(row["labels"])) for row in asked]
        self._skills = most_frequent(labels, config.keep)
        pairs = zip(asked, labels, strict=True)
        self._asked = [
            row | {"skills": skills}
            for row, skills in pairs
            if skills and set(skills) <= set(self._skills)
        ]
        self._left_out = len(asked) - len(self._asked)
        if not self._asked:
            raise UsageError(
                f"judge.keep={config.keep}: every question has a skill that is none of the "
                f"{config.keep} most frequent ones ({', '.join(self._skills)}); set it higher"
            )

    @property
    def askers(self) -> list[Asker]:
        """The judge."""
        return [self._asker]

    def wanted(self, context: Context) -> list[Wanted]:
        """Each model's answers; equal ones once."""
        return [wanted_in_memory(context, self._asker, self._questions())]

    def tell(self, context: Context) -> None:
        """Print and write the mean score of each model by skill."""
        figures = self._figures(context)
        config = self._config
        sections = _sections(figures)
        write_report(context, "judge.path", config.name, config.path, figures, sections)

    def _questions(self) -> Iterator[dict[str, Any]]:
        for row in self._asked:
            listed = "\n".join(f"- {skill}" for skill in row["skills"])
            for answer in row["answers"]:
                key = answer_id(row["text"], answer)
                yield {
                    "judgement_id": judgement_id(self._asker.judge, key, *row["skills"]),
                    "group_id": key,
                    "criterion": "skills",
                    "ids": row["skills"],
                    "fields": {"question": row["text"], "response": answer, "skills": listed},
                }

    def _figures(self, context: Context) -> dict[str, Any]:
        judge, scores = self._asker.judge, scores_of(context, self._asker.judge)
        models = {}
        for number, model in enumerate(self._config.answers):
            of_skill: dict[str, list[float]] = {skill: [] for skill in self._skills}
            judged = 0
            for row in self._asked:
                key = answer_id(row["text"], row["answers"][number])
                found = scores.get(judgement_id(judge, key, *row["skills"]))
                judged += found is not None
                for skill, score in zip(row["skills"], found or [], strict=False):
                    of_skill[skill].append(score)
            means = {skill: _mean(values) for skill, values in of_skill.items()}
            counts = {skill: len(values) for skill, values in of_skill.items()}
            there = [mean for mean in means.values() if mean is not None]
            models[model] = {
                "judged": judged, "skills": means, "counts": counts, "mean": _mean(there)
            }  # fmt: skip
        return {
            "judge": judge,
            "skills": self._skills,
            "questions": len(self._asked),
            "left_out": self._left_out,
            "models": models,
        }


def most_frequent(labels: Sequence[Sequence[str]], keep: int) -> list[str]:
    """The skills that most questions need, most frequent first (ties: by name)."""
    uses = Counter(skill for skills in labels for skill in skills)
    return sorted(uses, key=lambda skill: (-uses[skill], skill))[:keep]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _sections(figures: dict[str, Any]) -> list[Section]:
    skills, models = figures["skills"], figures["models"]
    means = {model: told["skills"] for model, told in models.items()}
    rows = [[skill, *(means[model][skill] for model in models)] for skill in skills]
    rows.append(["mean of the skills", *(told["mean"] for told in models.values())])
    rows.append(["answers judged", *(told["judged"] for told in models.values())])
    return [
        Section(
            "Mean scores by skill",
            f"1 to 5, of {figures['questions']:,} questions that need only these skills; "
            f"{figures['left_out']:,} others are left out.",
            ["skill", *models],
            rows,
            radar(skills, {model: list(of_model.values()) for model, of_model in means.items()}),
        )
    ]
