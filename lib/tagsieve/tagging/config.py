"""How queries are tagged."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tagsieve.config import RecipeModel


class MemoryTaggerConfig(RecipeModel):
    """The embedded tagger: MiniLM sentence vectors and a bank of labelled examples."""

    kind: Literal["memory"] = Field("memory", description="The embedded tagger.")
    banks: tuple[str, ...] = Field(
        ("builtin",),
        min_length=1,
        description="Folders made by `tagsieve bank` from your own labelled queries, and "
        "`builtin`, the one that ships; of several banks the tags are joined.",
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="Precision of the encoder; auto: bfloat16 where the CPU has it."
    )
    replicas: int = Field(1, ge=1, description="Actors, each with the encoder and the bank.")
    cpus_per_replica: int | None = Field(
        None, ge=1, description="Cores of an actor; default: all of the embedded Ray, shared."
    )
    commit_rows: int = Field(
        10_000, ge=1, description="Queries per commit: the most that a killed run tags again."
    )
    commit_seconds: float = Field(60.0, gt=0, description="Commit at least this often.")


TagConfig = MemoryTaggerConfig
