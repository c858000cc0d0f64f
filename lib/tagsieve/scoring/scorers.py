"""Which scorers a config is of: their fingerprints, and the actors of each model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tagsieve.engines.actors import ActorSpec
from tagsieve.engines.config import RayConfig
from tagsieve.engines.encoders import Dtype, dtype_of
from tagsieve.engines.llm.vllm import HOW_FAST, NO_VLLM
from tagsieve.engines.models import everywhere, model_digest, model_folder
from tagsieve.engines.ray import (
    check_precision,
    count_gpus,
    gpus_of_each,
    is_embedded,
    share_of_cores,
)
from tagsieve.errors import UsageError
from tagsieve.ledger import fingerprint
from tagsieve.scoring.config import (
    DeitaConfig,
    DirectConfig,
    LengthConfig,
    ModelScorerConfig,
    NeighbourDistanceConfig,
    NodesConfig,
    ScoreConfig,
    ScorerConfig,
    TagsConfig,
    TurnsConfig,
)

if TYPE_CHECKING:
    from tagsieve.engines.logprobs import LogprobEngine

CHUNK_TURNS = 256
GPU_CHUNK_TURNS = 4096
"""Turns of a chunk: enough that the last, half empty tile of each length costs little."""


@dataclass(frozen=True)
class ModelGroup:
    """Scorers of one model (`config` is any of theirs), by their fingerprints.

    `name`: what all of them share, so what runs that score with this model at the same time do.
    """

    name: str
    config: ModelScorerConfig
    scorers: Mapping[str, ModelScorerConfig]


def scorer_fingerprints(
    config: ScoreConfig, version: str | None = None, vectors: str | None = None
) -> dict[str, str]:
    """The fingerprint of each scorer by its name in the recipe: what it is and a hash of all that
    decides its scores. Scorers of other names and the same settings have the same one.

    `version`: the ontology version whose tags are counted. `vectors`: among which neighbours are
    looked for (`vector_set`). Raises UsageError when a model, a tokenizer or a prompt is not
    there, and when one of these is needed and not named.
    """
    return {scorer.name: _fingerprint(scorer, version, vectors) for scorer in config.scorers}


def _fingerprint(config: ScorerConfig, version: str | None, vectors: str | None) -> str:
    if isinstance(config, TurnsConfig):
        return "turns"
    if isinstance(config, TagsConfig):
        if version is None:
            raise UsageError(
                f"score.scorers {config.name}: kind tags counts the tags of an ontology version, "
                "and none was named"
            )
        return f"tags-{version}"
    if isinstance(config, NeighbourDistanceConfig):
        if vectors is None:
            raise UsageError(
                f"score.scorers {config.name}: kind neighbour_distance compares the vectors of an "
                "encoder, and none was named"
            )
        return f"neighbour-{config.neighbours}-{fingerprint(config.neighbours, vectors)[:12]}"
    if isinstance(config, DirectConfig | NodesConfig):
        from tagsieve.scoring.judging import judge_fingerprint

        return judge_fingerprint(config)
    if isinstance(config, LengthConfig):
        from tagsieve.scoring.lengths import length_fingerprint

        return length_fingerprint(config)
    if isinstance(config, DeitaConfig):
        from tagsieve.scoring.deita import deita_identity

        what, identity = f"deita-{config.what}", deita_identity(config)
    else:
        from tagsieve.scoring.losses import loss_identity

        what, identity = config.kind, loss_identity(config)
    return f"{what}-{fingerprint(what, _model_identity(config), identity)[:12]}"


def _model_identity(config: ModelScorerConfig) -> list[str | int | None]:
    """What decides a model's answers."""
    digest = model_digest(model_folder(config.model, config.revision))
    return [config.backend, digest, scorer_dtype(config), config.max_tokens]


def scorer_dtype(config: ModelScorerConfig) -> Dtype:
    """The precision of a scorer's model."""
    return "bfloat16" if config.dtype == "auto" and count_gpus() else dtype_of(config.dtype)


def model_groups(config: ScoreConfig, fingerprints: Mapping[str, str]) -> list[ModelGroup]:
    """The scorers that ask a model, together with those of the same model."""
    groups: dict[str, ModelGroup] = {}
    for scorer in config.by_model:
        name = f"{scorer.backend}-{fingerprint(_model_identity(scorer))[:12]}"
        group = groups.setdefault(name, ModelGroup(name, scorer, {}))
        groups[name] = ModelGroup(
            name, group.config, {**group.scorers, fingerprints[scorer.name]: scorer}
        )
    return list(groups.values())


def check_scorers(config: ScoreConfig, ray_config: RayConfig) -> None:
    """Refuse what can be seen to fail before an engine starts: models, tokenizers and prompts that
    are not there or lack what they need, more GPUs than there are. Raises UsageError."""
    if not config.scorers:
        raise UsageError(
            "score.scorers is empty, so the step score has nothing to do; name at least one, such "
            "as {kind: length, name: length, of: response, tokenizer: nltk}"
        )
    later = "checked when the step runs"
    scorer_fingerprints(config, later, later)
    for judge in config.by_judge:
        from tagsieve.scoring.judging import check_judge

        check_judge(judge, ray_config)
    for scorer in config.by_model:
        if isinstance(scorer, DeitaConfig):
            from tagsieve.engines.llm.fitting import load_tokenizer
            from tagsieve.scoring.deita import digit_tokens

            digit_tokens(scorer, load_tokenizer(model_folder(scorer.model, scorer.revision)))
    given = sorted(set(config.engine_args) - HOW_FAST)
    if given:
        raise UsageError(
            f"score.engine_args: {', '.join(given)} may change the scores, and would be in no "
            f"fingerprint; known here: {', '.join(sorted(HOW_FAST))}"
        )
    if not is_embedded(ray_config):
        return  # the cluster has its own environment
    if any(scorer.backend == "vllm" for scorer in config.by_model) and find_spec("vllm") is None:
        raise UsageError(NO_VLLM)
    wanted, there = config.replicas * (config.gpus_per_replica or 0), count_gpus()
    if config.by_model and wanted > there:
        raise UsageError(
            f"score.replicas={config.replicas} actors of score.gpus_per_replica="
            f"{config.gpus_per_replica} need {wanted:g} GPUs, this machine has {there}; lower "
            "them, or join a cluster by ray.address"
        )


def actors_of(
    config: ScoreConfig, group: ModelGroup, run_id: str, ray_config: RayConfig
) -> ActorSpec:
    """The actors of a model; Ray must have been started. Raises RunError as `check_precision`
    does."""
    from tagsieve.scoring.models import ModelScorer, killed_by

    gpus = gpus_of_each(config.replicas, config.gpus_per_replica)
    for scorer in group.scorers.values():
        setting = f"score.scorers {scorer.name} dtype"
        check_precision(setting, scorer.dtype, scorer_dtype(scorer), gpus)
    cpus = config.cpus_per_replica or (1 if gpus else share_of_cores(ray_config, config.replicas))
    engine = _engine(config, group.config, cpus, "cuda" if gpus else "cpu")
    return ActorSpec(
        ModelScorer,
        {"engine": engine, "scorers": group.scorers, "run_id": run_id},
        killed_by=partial(killed_by, run_id),
        label="score",
        replicas=config.replicas,
        cpus=cpus,
        gpus=gpus,
        chunk_rows=config.chunk_turns or (GPU_CHUNK_TURNS if gpus else CHUNK_TURNS),
        restarts=config.restarts,
    )


def _engine(
    config: ScoreConfig, scorer: ModelScorerConfig, threads: int, device: str
) -> LogprobEngine:
    """The engine of a model, not started yet."""
    (model, revision), dtype = everywhere(scorer.model, scorer.revision), scorer_dtype(scorer)
    if scorer.backend == "transformers":
        from tagsieve.engines.logprobs import TransformersLogprobs

        return TransformersLogprobs(model, revision, dtype, threads, scorer.max_tokens, device)
    from tagsieve.engines.llm.config import VllmConfig
    from tagsieve.engines.llm.logprobs import VllmLogprobs

    # One token more than the text: vLLM generates one.
    context = None if scorer.max_tokens is None else scorer.max_tokens + 1
    return VllmLogprobs(
        VllmConfig(
            model=model,
            revision=revision,
            dtype=dtype,
            max_model_len=context,
            engine_args=config.engine_args,
        )
    )
