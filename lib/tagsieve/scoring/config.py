"""Which scores a content gets. Imports no engine."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tagsieve.config import RecipeModel
from tagsieve.engines.llm.config import LlmConfig

Overlong = Literal["quarantine", "truncate"]
Context = Literal["instruction", "conversation"]


class _Scorer(RecipeModel):
    """What all scorers have."""

    name: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="What expressions call the score; each once in a recipe.",
    )


class _ModelScorer(_Scorer):
    """A scorer that asks a causal language model; scorers of one model share its passes."""

    model: str = Field(description="A folder, or a model's name on the Hugging Face hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    backend: Literal["transformers", "vllm"] = Field(
        "transformers", description="What runs the model; vllm by prompt log-probabilities."
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="Precision; auto: bfloat16 with a GPU or a CPU that has it, by the machine "
        "that submits. Part of the scorer: set it where several machines submit to one lake.",
    )
    max_tokens: int | None = Field(
        None, ge=32, description="Longest text, in tokens; default: the model's own limit."
    )
    overlong: Overlong = Field(
        "quarantine",
        description="A longer text goes to quarantine, or is cut (flag truncated): the end of what "
        "is scored, of a DEITA prompt the middle of the instruction (quality: of the response).",
    )


class DeitaConfig(_ModelScorer):
    """DEITA's scorers: the expected value over the next tokens "1" to "6"."""

    kind: Literal["deita"] = Field("deita", description="A scorer in the manner of DEITA.")
    what: Literal["complexity", "quality"] = Field(
        description="complexity: of the instruction; quality: of the response to it."
    )
    prompt: str | None = Field(
        None,
        description="Default: the published scorers' template, deita_complexity or deita_quality; "
        "else a file like those in conf/prompts.",
    )


class _ResponseScorer(_ModelScorer):
    """A scorer by the losses of the response given the instruction."""

    prompt: str = Field(
        "wizardlm",
        description="What comes before the response: wizardlm, chat (the model's chat template), "
        "or a file like those in conf/prompts with {instruction}.",
    )
    context: Context = Field(
        "instruction",
        description="A turn's response is given its instruction, or all of the conversation "
        "before it.",
    )


class IfdConfig(_ResponseScorer):
    """IFD: loss of the response given the instruction / loss of the response alone."""

    kind: Literal["ifd"] = Field("ifd", description="Instruction-following difficulty.")


class PerplexityConfig(_ResponseScorer):
    """Perplexity of the response."""

    kind: Literal["perplexity"] = Field("perplexity", description="Perplexity of the response.")
    given: Literal["nothing", "instruction"] = Field(
        "instruction", description="What the response is predicted from."
    )


class ResponseLossConfig(_ResponseScorer):
    """Mean loss of the response given the instruction."""

    kind: Literal["response_loss"] = Field("response_loss", description="Loss of the response.")


class InstructionLossConfig(_ModelScorer):
    """Mean loss of the instruction."""

    kind: Literal["instruction_loss"] = Field(
        "instruction_loss", description="Loss of the instruction, given nothing."
    )


class _JudgeScorer(_Scorer):
    """A scorer that asks a language model for its judgement."""

    engine: LlmConfig = Field(
        description="The judge, with those settings of tag (vllm) or tag (http) that are its."
    )
    overlong: Overlong = Field(
        "quarantine",
        description="A prompt too long for the judge goes to quarantine, or loses the middle of "
        "its instruction (of a quality prompt: of the response; flag truncated).",
    )


class DirectConfig(_JudgeScorer):
    """Direct scoring: the judge gives the score of a turn as a number."""

    kind: Literal["direct"] = Field("direct", description="A judge's score.")
    what: Literal["complexity", "quality"] = Field(
        description="complexity: of the instruction, 1 to 10; quality: of the response to it, 0 to "
        "5. Both in steps of 0.5."
    )
    prompt: str | None = Field(
        None,
        description="Default: judge_complexity or judge_quality; else a file like those in "
        "conf/prompts that asks for the same form.",
    )


class NodesConfig(_JudgeScorer):
    """Instruction node: the nodes of the instruction's semantic tree, which the judge writes."""

    kind: Literal["nodes"] = Field("nodes", description="Nodes of the instruction's tree.")
    prompt: str = Field(
        "instruction_nodes",
        description="Or a file like those in conf/prompts that asks for the same form.",
    )
    max_nodes: int = Field(
        200, ge=1, description="A tree with more nodes than this ran away: to quarantine."
    )


class NeighbourDistanceConfig(_Scorer):
    """Distance to the k-th nearest other conversation by the recipe's `embed`."""

    kind: Literal["neighbour_distance"] = Field(
        "neighbour_distance", description="Cosine distance to a near conversation's vector."
    )
    neighbours: int = Field(
        1, ge=1, le=1000, description="k: the distance is that to the k-th nearest other vector."
    )


class LengthConfig(_Scorer):
    """Length of the instruction or of the response."""

    kind: Literal["length"] = Field("length", description="Length of a text.")
    of: Literal["instruction", "response"] = Field("response", description="Of which text.")
    tokenizer: str = Field(
        description="The unit: characters, words (by white space), nltk (words and punctuation), "
        "or a folder or hub name of a tokenizer. No default: it changes what is longest."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of it on the hub.")


class TurnsConfig(_Scorer):
    """Number of human turns, one score for the whole conversation."""

    kind: Literal["turns"] = Field("turns", description="Number of human turns.")


class TagsConfig(_Scorer):
    """InsTag complexity: number of tags of the turn's query."""

    kind: Literal["tags"] = Field("tags", description="Number of tags of the query.")


LossScorerConfig = IfdConfig | PerplexityConfig | ResponseLossConfig | InstructionLossConfig
ModelScorerConfig = DeitaConfig | LossScorerConfig
JudgeScorerConfig = DirectConfig | NodesConfig
RelationalScorerConfig = LengthConfig | TurnsConfig | TagsConfig
ScorerConfig = Annotated[
    ModelScorerConfig | JudgeScorerConfig | NeighbourDistanceConfig | RelationalScorerConfig,
    Field(discriminator="kind"),
]


class ScoreConfig(RecipeModel):
    """The scores of every turn, and where their models run."""

    scorers: tuple[ScorerConfig, ...] = Field((), description="What is scored.")
    replicas: int = Field(
        1, ge=1, description="Actors of each model, and those that compare vectors."
    )
    cpus_per_replica: int | None = Field(
        None, ge=1, description="Cores of an actor; default: 1 with a GPU, else all, shared."
    )
    gpus_per_replica: float | None = Field(
        None, ge=0, description="GPUs of an actor; default: 1 where this machine has any."
    )
    chunk_turns: int | None = Field(
        None,
        ge=1,
        description="Turns of a chunk; a killed run scores again at most two chunks of each "
        "replica and what was not committed. Default: 4096 on a GPU, else 256.",
    )
    engine_args: dict[str, Any] = Field(
        {}, description="Arguments of vLLM's engine that say how fast, such as max_num_seqs."
    )
    commit_seconds: float = Field(60.0, gt=0, description="Longest time between commits.")
    restarts: int = Field(
        3, ge=0, description="An engine that dies is started again so often in a row."
    )

    @property
    def by_model(self) -> tuple[ModelScorerConfig, ...]:
        """The scorers that ask a model."""
        return tuple(s for s in self.scorers if isinstance(s, _ModelScorer))

    @property
    def by_judge(self) -> tuple[JudgeScorerConfig, ...]:
        """The scorers that ask a judge."""
        return tuple(s for s in self.scorers if isinstance(s, _JudgeScorer))

    @property
    def by_neighbours(self) -> tuple[NeighbourDistanceConfig, ...]:
        """The scorers that compare vectors."""
        return tuple(s for s in self.scorers if isinstance(s, NeighbourDistanceConfig))

    @property
    def relational(self) -> tuple[RelationalScorerConfig, ...]:
        """The scorers that Spark computes."""
        return tuple(s for s in self.scorers if isinstance(s, RelationalScorerConfig))

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        twice = [name for name, n in Counter(s.name for s in self.scorers).items() if n > 1]
        if twice:
            raise ValueError(f"two scorers are called {twice[0]}; give each a name of its own")
        return self
