"""Rows that a model's chat template refuses are set aside, one by one."""

import pytest

from tagsieve.training.encoding import encode
from tagsieve.training.sources import encoding_of
from tokenizers_of import byte_level

ALTERNATE = (
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}{{ '<' + m.role + '>' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
FORGET_THOUGHTS = (
    "{% for m in messages %}{{ '<' + m.role + '>' }}"
    "{{ m.content if loop.last else m.content.split('</think>')[-1] }}"
    "{{ eos_token if m.role == 'assistant' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
GOOD = [("user", "hi"), ("assistant", "yo")]


@pytest.mark.parametrize(
    ("template", "refused"),
    [
        (ALTERNATE, [("system", "be nice"), *GOOD]),
        (ALTERNATE, [("user", "hi"), *GOOD]),
        (FORGET_THOUGHTS, [("user", "hi"), ("assistant", "<think>x</think>yo")] * 2),
    ],
)
def test_one_row_that_the_chat_template_refuses(spark, make_config, template, refused):
    tokenizer = byte_level()
    tokenizer.chat_template = template
    rows = [
        (name, place, [{"role": role, "content": text} for role, text in turns], "")
        for place, (name, turns) in enumerate((("a", GOOD), ("b", refused), ("c", GOOD)))
    ]
    frame = spark.createDataFrame(
        rows, "id string, place long, turns array<struct<role: string, content: string>>, "
        "given string"
    )  # fmt: skip
    found = encode(frame, encoding_of(make_config(template="chat"), tokenizer)).collect()
    assert {row["id"]: row["reason"] for row in found} == {"a": None, "b": "template", "c": None}
    kept = [row["input_ids"] for row in found if row["reason"] is None]
    asked = "<user>hi</s>" if template == ALTERNATE else "<user>hi"
    ids = tokenizer(f"{asked}<assistant>yo</s>", add_special_tokens=False)["input_ids"]
    assert kept == [ids, ids]
