"""The elements of JSON arrays of any size, one by one, with the bytes that they came as."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import IO

import pyarrow as pa

from tagsieve.errors import RunError
from tagsieve.ingest.files import open_file

MAX_ELEMENT = 32 << 20
"""Characters of the longest element that is looked for; a longer one breaks its array."""

_CHUNK = 1 << 20
_BATCH_ROWS = 1024
_BATCH_BYTES = 4 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
# Only where a value ends is of interest: signs and numbers that are no JSON are told later, each
# in its own element.
_VALUES = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)

ELEMENTS = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("source_row", pa.int64()),
        pa.field("payload", pa.binary()),
        pa.field("whole", pa.bool_()),
    ]
)


def read_elements(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The elements of the files that `source` names, as rows of ELEMENTS; `source_row` counts
    them from 0. What is held in memory grows with the largest element only.

    Raises RunError when a file cannot be read to its end.
    """
    rows: list[tuple[str, int, bytes, bool]] = []
    held = 0
    for batch in batches:
        for uri in batch["source"].to_pylist():
            for number, (element, whole) in enumerate(_elements(uri)):
                rows.append((uri, number, element, whole))
                held += len(element)
                if held > _BATCH_BYTES or len(rows) == _BATCH_ROWS:
                    yield _batch(rows)
                    rows, held = [], 0
    yield _batch(rows)


def _elements(uri: str) -> Iterator[tuple[bytes, bool]]:
    try:
        with open_file(uri) as stream:
            yield from split_elements(stream)
    except OSError as error:
        raise RunError(f"inputs: {uri} cannot be read: {error}") from error


def _batch(rows: list[tuple[str, int, bytes, bool]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[]] * len(ELEMENTS)
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, ELEMENTS, strict=True)],
        schema=ELEMENTS,
    )


def split_elements(stream: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The bytes of each element of the JSON array in `stream`, and whether it is whole.

    Where the array is broken, breaks off, has an element above MAX_ELEMENT or is followed by
    anything, what is left (at most MAX_ELEMENT of it) comes as one last piece that is not whole.
    A file that is no array is one piece, a blank one none.
    """
    text = _Text(stream)
    if text.sign() == "\ufeff":
        text.skip()
    if text.sign() != "[":
        if text.sign():
            yield text.rest()
        return
    text.skip()
    more = text.sign() != "]"
    while more:
        element = text.value()
        if element is None:
            break
        yield _bytes(element), True
        more = text.sign() == ","
        if more:
            text.skip()
    if not more and text.sign() == "]":
        text.skip()
        if not text.sign():
            return
    left, _ = text.rest()
    yield left, False


class _Text:
    """The text of a stream: what is read and not used yet. Bytes that are no UTF-8 come back as
    they were."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self._at = 0
        self._ended = False

    def sign(self) -> str:
        """The next sign that is no space, empty at the end. It is not used yet."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text) or not self._read():
                return self._text[self._at : self._at + 1]

    def skip(self) -> None:
        """Use one sign."""
        self._at += 1

    def value(self) -> str | None:
        """Use the next JSON value; None (and nothing is used) where there is none."""
        self.sign()
        while True:
            try:
                _, end = _VALUES.raw_decode(self._text, self._at)
            except (ValueError, RecursionError):
                end = None
            if end is not None and self._is_end(end):
                value = self._text[self._at : end]
                self._at = end
                return value
            if not self._read():
                return None

    def _is_end(self, place: int) -> bool:
        """Whether a value that seems to end here does: a number may go on (1, 1.5, 1.5e3)."""
        if place == len(self._text):
            return self._ended
        return self._text[place] in ",] \t\n\r"

    def rest(self) -> tuple[bytes, bool]:
        """Use all that is left, at most MAX_ELEMENT of it, and whether that is all."""
        while self._read():
            pass
        return _bytes(self._text[self._at :]), self._ended

    def _read(self) -> bool:
        """Read on, as much as is held; False at the end, or where that would be too much."""
        self._text = self._text[self._at :]
        self._at = 0
        room = MAX_ELEMENT - len(self._text)
        if self._ended or room <= 0:
            return False
        read = self._stream.read(min(max(_CHUNK, len(self._text)), room))
        self._ended = not read
        self._text += self._decoder.decode(read, self._ended)
        return True


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
