"""The prompts of the generator, the judge and the scorer; the fingerprints of the first two."""

from __future__ import annotations

from tagsieve.engines.config import RayConfig
from tagsieve.engines.llm.asking import check_llm, prompt_fingerprint
from tagsieve.engines.llm.prompts import PromptTemplate, load_prompt
from tagsieve.errors import UsageError
from tagsieve.evolving.config import EvolveConfig

_FIELDS = {"complexity": ("instruction",), "quality": ("instruction", "response")}


def generator_prompt(config: EvolveConfig) -> PromptTemplate:
    """The generator's prompt; UsageError when it cannot be used."""
    name = config.prompt or f"evolve_{config.what}"
    template = load_prompt(name, (*_FIELDS[config.what], "operator"))
    if not template.operators:
        raise UsageError(
            f"evolve.prompt={name}: has no operators; expected a map of names and texts, one of "
            "which is put at {operator}"
        )
    return template


def operators(config: EvolveConfig) -> list[str]:
    """Names of the operators to choose from; UsageError for one that the prompt does not have."""
    known = generator_prompt(config).operators
    unknown = [name for name in config.operators if name not in known]
    if unknown:
        raise UsageError(
            f"evolve.operators: {unknown[0]!r} is none of the prompt's ({', '.join(known)})"
        )
    return sorted(set(config.operators or known))


def judge_prompt(config: EvolveConfig) -> PromptTemplate:
    """The judge's prompt; UsageError when it cannot be used."""
    fields = ("variants", "count", *(("instruction",) if config.what == "quality" else ()))
    return load_prompt(config.judge_prompt or f"rank_{config.what}", fields)


def scorer_text(config: EvolveConfig) -> str:
    """What a scorer is trained to complete; UsageError when it is no text to be completed."""
    name = config.scorer_prompt or f"deita_{config.what}"
    template = load_prompt(name, _FIELDS[config.what])
    if template.text is None:
        raise UsageError(
            f"evolve.scorer_prompt={name}: has messages; a scorer completes a text, so name a "
            "prompt with text, such as deita_complexity"
        )
    return template.text


def generator_fingerprint(config: EvolveConfig) -> str:
    """A readable name and a hash of what decides a variant, given its parent and operator."""
    return prompt_fingerprint(config.generator, generator_prompt(config), config.max_chars)


def judge_fingerprint(config: EvolveConfig) -> str:
    """A readable name and a hash of what decides the scores, given the variants."""
    return prompt_fingerprint(config.ranker, judge_prompt(config))


def check_evolve(config: EvolveConfig | None, ray_config: RayConfig) -> EvolveConfig:
    """The config, after refusing what can be seen to fail. Raises UsageError."""
    if config is None:
        raise UsageError(
            "evolve: missing; it has no default. Set at least evolve.what, evolve.name and "
            "evolve.generator, as in conf/recipes/evolve.yaml"
        )
    operators(config)
    scorer_text(config)
    generator_fingerprint(config)
    judge_fingerprint(config)
    check_llm(config.generator, ray_config, "evolve.generator")
    if config.judge is not None:
        check_llm(config.judge, ray_config, "evolve.judge")
    return config
