"""From a record (a variant) to turns, or to the reason why there are none. Expressions only."""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tagsieve.ingest.config import FieldMap, IngestConfig, Shape

_ROLES = {
    "system": ("system",),
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "model", "bard", "bing", "function_call"),
    "tool": ("tool", "function", "observation", "ipython"),
}
_LIST_FIELDS = {"sharegpt": ("conversations", "conversation"), "messages": ("messages",)}
_PAIR_FIELDS = {
    "alpaca": FieldMap(
        query="instruction", input="input", response="output", system="system", history="history"
    ),
    "completion": FieldMap(query="prompt", response="completion", system="system"),
    "qa": FieldMap(query="question", response="answer", system="system"),
}

_TURN = "struct<role: string, content: string, reason: string>"
_TURNS = "array<struct<role: string, content: string>>"


def read_shape(records: DataFrame, shape: Shape, fields: FieldMap | None) -> DataFrame:
    """Add `turns`, `meta` and a first `reason` to records of one input.

    Reasons: `not_an_object`, `unknown_format` (none of the shape's fields are there), `wrong_type`
    (a text that is no string, turns that are no list), `missing_role`, `unknown_role`. Turns
    without text are dropped from system and history only where the field is absent.
    """
    found = F.when(F.col("reason").isNull(), _found(shape, fields))
    records = records.withColumn("_found", found)
    is_object = F.schema_of_variant("record").startswith("OBJECT")
    turn_reason = F.array_max(F.transform("_found.turns", lambda turn: turn["reason"]))
    reason = F.coalesce(
        F.col("reason"),
        F.when(~is_object, "not_an_object"),
        F.when(F.col("_found").isNull(), "unknown_format"),
        F.col("_found.reason"),
        turn_reason,
    )
    turns = F.transform(
        "_found.turns", lambda t: F.struct(t["role"].alias("role"), t["content"].alias("content"))
    ).cast(_TURNS)
    entries = F.expr("try_variant_get(record, '$', 'map<string,string>')")
    used = F.col("_found.used")
    meta = F.map_filter(
        entries, lambda name, text: text.isNotNull() & ~F.array_contains(used, name)
    )
    return (
        records.withColumn("turns", turns)
        .withColumn("reason", reason)
        .withColumn("meta", F.when(F.col("reason").isNull(), meta))
        .drop("_found")
    )


def check_turns(samples: DataFrame, config: IngestConfig) -> DataFrame:
    """Fill `reason` for turns that the config refuses: `no_human_turn`, `empty_query`,
    `no_response`, `empty_response`, `too_long`, `too_many_turns`. A row of a `target` needs no
    response, and a blank one at its end is none."""
    turns = F.col("turns")

    def blank(turn: Column) -> Column:
        return F.regexp_like(
            turn["content"],
            F.lit(r"^[\s\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$"),
        )

    last = F.get(turns, F.size(turns) - 1)
    unanswered = F.col("target") & (last["role"] == "assistant") & blank(last)
    whole = F.when(unanswered, F.slice(turns, 1, F.size(turns) - 1)).otherwise(turns)
    samples = samples.withColumn("turns", whole)
    users = F.filter(turns, lambda turn: turn["role"] == "user")
    answers = F.filter(turns, lambda turn: turn["role"] == "assistant")
    checks = [
        F.when(F.size(users) == 0, "no_human_turn"),
        F.when(F.exists(users, blank), "empty_query"),
    ]
    if config.no_response == "reject":
        checks.append(F.when((last["role"] != "assistant") & ~F.col("target"), "no_response"))
    if config.empty_response == "reject":
        checks.append(F.when(F.exists(answers, blank), "empty_response"))
    if config.max_chars is not None:
        chars = F.aggregate(turns, F.lit(0), lambda total, turn: total + F.length(turn["content"]))
        checks.append(F.when(chars > config.max_chars, "too_long"))
    if config.max_turns is not None:
        checks.append(F.when(F.size(users) > config.max_turns, "too_many_turns"))
    return samples.withColumn("reason", F.coalesce("reason", *checks))


def _found(shape: Shape, fields: FieldMap | None) -> Column:
    """A struct of `turns` (role, content, reason), `reason` and `used` (the top-level fields that
    the turns are made of), null where the shape is not there."""
    if shape == "fields":
        assert fields is not None
        return _by_map(fields)
    candidates = [
        _by_list(name, ("from", "role"), ("value", "content"))
        for kind, names in _LIST_FIELDS.items()
        if shape in ("auto", kind)
        for name in names
    ]
    candidates += [_by_map(pair) for kind, pair in _PAIR_FIELDS.items() if shape in ("auto", kind)]
    return F.coalesce(*candidates)


def _by_map(fields: FieldMap) -> Column:
    if fields.turns is not None:
        return _by_list(fields.turns, (fields.role,), (fields.content,))
    query, answer = _get(fields.query), _get(fields.response)
    present = query.isNotNull() | answer.isNotNull()
    extra = _get(fields.input)
    text, extra_text = _text(query), _text(extra)
    joined = F.when(
        extra_text.isNotNull() & (F.trim(extra_text) != ""), F.concat_ws("\n", text, extra_text)
    ).otherwise(text)
    wrong = reduce(Column.__or__, (_wrong(part) for part in (query, answer, extra)))
    system = _get(fields.system)
    history = _get(fields.history)
    turns = F.concat(
        F.when(_text(system) != "", F.array(_turn(F.lit("system"), _text(system)))).otherwise(
            _no_turns()
        ),
        _history(history),
        # No query is no human turn; no answer is an empty one, so that it is refused as such.
        F.when(text.isNotNull(), F.array(_turn(F.lit("user"), joined))).otherwise(_no_turns()),
        F.array(_turn(F.lit("assistant"), F.coalesce(_text(answer), F.lit("")))),
    )
    bad_history = (
        history.isNotNull() & ~_is_void(history) & ~F.schema_of_variant(history).startswith("ARRAY")
    )
    reason = F.when(wrong | _wrong(system) | bad_history, "wrong_type")
    parts = [fields.query, fields.response, fields.system, fields.history]
    if fields is not _PAIR_FIELDS["alpaca"]:
        # Alpaca's `input` stays in meta: exports in alpaca form take the query apart again.
        parts.append(fields.input)
    used = _top_level(*parts)
    return F.when(present, F.struct(turns.alias("turns"), reason.alias("reason"), used))


def _history(history: Column) -> Column:
    """Turns of `[[query, response], ...]`."""
    pairs = F.try_variant_get(history, "$", "array<variant>")

    def both(pair: Column) -> Column:
        query = F.try_variant_get(pair, "$[0]", "variant")
        answer = F.try_variant_get(pair, "$[1]", "variant")
        reason = F.when(
            query.isNull() | answer.isNull() | _wrong(query) | _wrong(answer), "wrong_type"
        )
        return F.array(
            _turn(F.lit("user"), F.coalesce(_text(query), F.lit("")), reason),
            _turn(F.lit("assistant"), F.coalesce(_text(answer), F.lit("")), reason),
        )

    return F.coalesce(F.flatten(F.transform(pairs, both)), _no_turns())


def _by_list(name: str, role_names: tuple[str, ...], text_names: tuple[str, ...]) -> Column:
    listed = _get(name)
    items = F.try_variant_get(listed, "$", "array<variant>")

    def turn(item: Column) -> Column:
        raw_role = F.coalesce(
            *(F.try_variant_get(item, f"$.{name}", "string") for name in role_names)
        )
        role = F.lower(F.trim(raw_role))
        known = reduce(
            lambda when, entry: when.when(role.isin(*entry[1]), entry[0]),
            list(_ROLES.items())[1:],
            F.when(role.isin(*_ROLES["system"]), "system"),
        )
        content = F.coalesce(
            *(F.try_variant_get(item, f"$.{name}", "variant") for name in text_names)
        )
        # An assistant's tool call has no content of its own; its JSON is what was said.
        listed_calls = F.try_variant_get(item, "$.tool_calls", "array<variant>")
        calls = F.when(F.size(listed_calls) > 0, F.try_variant_get(item, "$.tool_calls", "string"))
        own_text = F.nullif(_text(content), F.lit(""))
        text = F.coalesce(own_text, _parts(content), calls, F.lit(""))
        reason = F.coalesce(
            F.when(~F.schema_of_variant(item).startswith("OBJECT"), "wrong_type"),
            F.when(_wrong(content) & _parts(content).isNull(), "wrong_type"),
            F.when(raw_role.isNull(), "missing_role"),
            F.when(known.isNull(), "unknown_role"),
        )
        return _turn(known, text, reason)

    reason = F.when(items.isNull(), "wrong_type")
    turns = F.coalesce(F.transform(items, turn), _no_turns())
    found = F.struct(turns.alias("turns"), reason.alias("reason"), _top_level(name))
    return F.when(listed.isNotNull(), found)


def _parts(content: Column) -> Column:
    """The text of `[{"type": "text", "text": ...}, ...]`, null when a part is anything else."""
    parts = F.try_variant_get(content, "$", "array<variant>")
    texts = F.transform(parts, lambda part: _text(F.try_variant_get(part, "$.text", "variant")))
    whole = ~F.exists(texts, lambda text: text.isNull()) & (F.size(texts) > 0)
    return F.when(whole, F.array_join(texts, "\n"))


def _turn(role: Column, content: Column, reason: Column | None = None) -> Column:
    why = F.lit(None).cast("string") if reason is None else reason
    return F.struct(role.alias("role"), content.alias("content"), why.alias("reason")).cast(_TURN)


def _no_turns() -> Column:
    return F.array().cast(f"array<{_TURN}>")


def _get(name: str | None) -> Column:
    if name is None:
        return F.lit(None).cast("variant")
    path = "".join(f"['{part}']" for part in name.split("."))
    return F.try_variant_get("record", f"${path}", "variant")


def _top_level(*names: str | None) -> Column:
    used = [F.lit(name.split(".")[0]) for name in names if name is not None]
    return F.array(*used).alias("used")


def _is_void(value: Column) -> Column:
    return F.schema_of_variant(value) == "VOID"


def _text(value: Column) -> Column:
    """The string in a variant, null for anything else."""
    return F.when(F.schema_of_variant(value) == "STRING", F.try_variant_get(value, "$", "string"))


def _wrong(value: Column) -> Column:
    """Whether a variant holds something that is neither a string nor JSON's null."""
    return F.coalesce(~F.schema_of_variant(value).isin("STRING", "VOID"), F.lit(False))
