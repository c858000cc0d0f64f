"""Where a language model runs and how it is asked. Imports no engine."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tagsieve.config import RecipeModel
from tagsieve.engines.config import CommitConfig


class DecodingConfig(RecipeModel):
    """How the answer is decoded: part of what the answer is, so part of the fingerprint."""

    max_tokens: int = Field(512, ge=1, description="Most tokens of an answer; a longer one is cut.")
    temperature: float = Field(0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling.")
    seed: int = Field(0, description="For sampling.")


class VllmConfig(CommitConfig):
    """A model in vLLM, one engine per Ray actor."""

    kind: Literal["vllm"] = Field("vllm", description="A model in vLLM.")
    model: str = Field(description="A folder, or a model's name on the Hugging Face hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    lora: str | None = Field(None, description="Folder of a LoRA adapter on top of the model.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Precision; auto: the model's own."
    )
    max_model_len: int | None = Field(
        None, ge=16, description="Context in tokens, prompt and answer; default: the model's own."
    )
    decoding: DecodingConfig = Field(
        default_factory=DecodingConfig, description="How the answer is decoded, as of vllm."
    )
    guided_json: bool = Field(
        False, description="Let the engine allow only the tokens of the expected JSON."
    )
    replicas: int = Field(1, ge=1, description="Engines, each in an actor of its own.")
    tensor_parallel_size: int = Field(
        1, ge=1, description="GPUs of one engine, all on one machine."
    )
    cpus_per_replica: int | None = Field(
        None, ge=1, description="Cores of an actor; default: 1 with a GPU, else all, shared."
    )
    in_flight: int = Field(
        1024, ge=1, description="Prompts at an engine at once; more than it batches keeps it full."
    )
    engine_args: dict[str, Any] = Field(
        {}, description="Any other argument of vLLM's engine, such as enforce_eager: true."
    )

    @field_validator("engine_args")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        ours = {"model", "revision", "dtype", "max_model_len", "tensor_parallel_size"} & set(value)
        if ours:
            raise ValueError(f"set {', '.join(sorted(ours))} beside engine_args, not in it")
        return value


class BudgetConfig(RecipeModel):
    """What a run may spend at an endpoint; what is left over waits for the next run."""

    requests: int | None = Field(None, ge=1, description="HTTP requests, retries among them.")
    tokens: int | None = Field(
        None, ge=1, description="Tokens of prompts and answers, as the endpoint counts them."
    )


class HttpConfig(CommitConfig):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["http"] = Field("http", description="An OpenAI-compatible endpoint.")
    base_url: str = Field(description="Such as http://localhost:8000/v1.")
    model: str = Field(description="The model's name at the endpoint.")
    api_key_env: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable with the key; never the key itself.",
    )
    decoding: DecodingConfig = Field(
        default_factory=DecodingConfig, description="How the answer is decoded, as of vllm."
    )
    guided_json: bool = Field(
        False, description="Ask for the expected JSON by response_format (json_schema)."
    )
    extra_body: dict[str, Any] = Field(
        {}, description="Further fields of each request; part of the fingerprint."
    )
    tokenizer: str | None = Field(
        None, description="Folder or hub name of the model's tokenizer, to count and cut by tokens."
    )
    max_prompt_tokens: int | None = Field(
        None, ge=16, description="Longest prompt; needs the tokenizer. Default: the endpoint's."
    )
    concurrency: int = Field(64, ge=1, description="Requests at once.")
    requests_per_minute: float | None = Field(None, gt=0, description="Rate limit.")
    timeout_seconds: float = Field(120.0, gt=0, description="Longest wait for one answer.")
    retries: int = Field(
        5,
        ge=0,
        description="More tries after a lost connection, a timeout, 408, 409, 429 or 5xx, with "
        "growing waits or as Retry-After says.",
    )
    max_failures: int = Field(
        50, ge=1, description="So many failures with no answer in between stop the job."
    )
    budget: BudgetConfig = Field(
        default_factory=BudgetConfig, description="What a run may spend, as of tag (http)."
    )

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("expected http://host:port/v1 or https://host/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("no user, password or query: name the key's variable in api_key_env")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_prompt_tokens is not None and self.tokenizer is None:
            raise ValueError("max_prompt_tokens needs tokenizer: name the model's")
        return self


class RecordedConfig(CommitConfig):
    """Answers that a model gave before, in a file of JSON lines."""

    kind: Literal["recorded"] = Field("recorded", description="Answers from a file.")
    model: str = Field(description="Whose answers they are, for the fingerprint.")
    path: str = Field(
        description="File or URI; compressed by its ending. Each line has the fields of a prompt, "
        "as in the file of the prompt, and answer; a prompt without a line goes to quarantine.",
    )


LlmConfig = Annotated[VllmConfig | HttpConfig | RecordedConfig, Field(discriminator="kind")]
