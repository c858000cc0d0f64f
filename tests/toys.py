"""Conversations that a tiny model can learn."""

WORDS = ("sea", "list", "sort", "poem", "time", "good", "user", "facts")

TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you."},
]
"""A conversation of two exchanges."""


def turns_of(number):
    """A question and the one answer to it."""
    word = WORDS[number % len(WORDS)]
    return [("user", f"say {word}"), ("assistant", f"{word} {word}")]
