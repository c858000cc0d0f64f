"""What to read, and which rows to refuse."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tagsieve.config import RecipeModel

Container = Literal["auto", "json", "jsonl", "csv", "parquet", "delta"]
Shape = Literal["auto", "alpaca", "sharegpt", "messages", "completion", "qa", "fields"]


class FieldMap(RecipeModel):
    """Where the parts of a conversation lie in a record of any other shape (dots reach inside)."""

    query: str | None = Field(None, description="Field with the human turn.")
    input: str | None = Field(None, description="Field appended to the query after a line break.")
    response: str | None = Field(None, description="Field with the assistant's turn.")
    system: str | None = Field(None, description="Field with the system message.")
    history: str | None = Field(None, description="Field with earlier [query, response] pairs.")
    turns: str | None = Field(None, description="Field with a list of turns, instead of the above.")
    role: str = Field("role", description="Name of the role within a turn of `turns`.")
    content: str = Field("content", description="Name of the text within a turn of `turns`.")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.turns is None) == (self.query is None):
            raise ValueError("set either turns (a list of turns) or query and response")
        return self


class Input(RecipeModel):
    """One source of a pool: files, or a Hugging Face data set."""

    pool: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the pool.")
    path: str | None = Field(
        None, description="File, folder, glob or URI; a folder is read with all below it."
    )
    dataset: str | None = Field(
        None, description="Hugging Face data set: a name, or a folder made by save_to_disk."
    )
    subset: str | None = Field(None, description="Configuration of the data set.")
    split: str = Field("train", description="Split of the data set.")
    target: bool = Field(
        False,
        description="A sample of the queries that one cares about, such as production prompts: "
        "rows need no answer, get tags and vectors as others do, and are never selected or mixed.",
    )
    container: Container = Field("auto", description="File type; auto: by name and first bytes.")
    format: Shape = Field("auto", description="Shape of a record; auto: by its fields.")
    fields: FieldMap | None = Field(None, description="For records of any other shape.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("set either path (files) or dataset (Hugging Face)")
        if self.fields is not None and self.format not in ("auto", "fields"):
            raise ValueError("format and fields are both set; leave one out")
        if self.format == "fields" and self.fields is None:
            raise ValueError("format: fields needs the field map `fields`")
        return self

    @property
    def shape(self) -> Shape:
        """The shape to read, `fields` where a field map is given."""
        return "fields" if self.fields is not None else self.format


class IngestConfig(RecipeModel):
    """Which rows become samples. A refused row is in `rejects` with its reason."""

    empty_response: Literal["reject", "keep"] = Field(
        "reject", description="A conversation with a blank assistant turn (`empty_response`)."
    )
    no_response: Literal["reject", "keep"] = Field(
        "reject", description="A conversation that does not end with an answer (`no_response`)."
    )
    max_chars: int | None = Field(
        1_000_000, ge=1, description="Longest conversation, over all turns (`too_long`)."
    )
    max_turns: int | None = Field(
        None, ge=1, description="Most human turns of a conversation (`too_many_turns`)."
    )
    languages: tuple[str, ...] | None = Field(
        None, description="ISO 639-1 codes to keep, `und` for undecided (`language`); null: all."
    )
    min_language_score: float = Field(
        0.3, ge=0, le=1, description="A language found with less confidence is `und`."
    )
    meta: bool = Field(True, description="Keep a record's other fields as strings in `meta`.")
