"""The elements of a JSON array, however it is cut into reads, and what is left of a broken one."""

import bz2
import gzip
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsieve.errors import RunError
from tagsieve.ingest import json_arrays
from tagsieve.ingest.json_arrays import ELEMENTS, read_elements, split_elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
ODD = ['a "b", ]', "\\", "é 你 👩‍💻 \ud800", -1.5e300, 0, [], {"": [{}, "]"]}, None, True, 10**30]


class Dripping(io.BytesIO):
    """Gives at most `size` bytes at a time."""

    def __init__(self, data, size):
        super().__init__(data)
        self._size = size

    def read(self, size=-1):
        return super().read(min(size, self._size))


def split(data, size=1 << 20):
    return list(split_elements(Dripping(data, size)))


@given(st.lists(VALUES, max_size=5), st.booleans(), st.sampled_from([None, 2]), st.integers(1, 9))
def test_split_elements_gives_the_elements_of_any_array(values, escaped, indent, size):
    # Lone surrogates are JSON only where they are escaped.
    text = json.dumps(values, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")
    pieces = split(text, size)
    assert all(whole for _, whole in pieces)
    decoded = [json.loads(piece.decode("utf-8", "surrogatepass")) for piece, _ in pieces]
    assert json.dumps(decoded) == json.dumps(values)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_split_elements_keeps_the_bytes_as_they_came(size):
    elements = [json.dumps(value).encode() for value in ODD]
    elements += [b'{ "a" :\t[ 1 ,2 ] }', b'"caf\xe9 \xf0\x9f"', b"NaN", b'"\n"', b"1" * 5000]
    text = b"\xef\xbb\xbf \n[" + b" ,\r\n ".join(elements) + b" ] \n"
    assert split(text, size) == [(element, True) for element in elements]


@pytest.mark.parametrize(
    ("text", "count", "left"),
    [
        (b"[1", 1, b""),
        (b"[1,", 1, b""),
        (b"[1, ]", 1, b"]"),
        (b"[1, 2 3, 4]", 2, b"3, 4]"),
        (b'[1, {"a": "b', 1, b'{"a": "b'),
        (b"[1, {a: 2}, 3]", 1, b"{a: 2}, 3]"),
        (b"[1]\n[2]\n", 1, b"[2]\n"),
        (b"[1]]", 1, b"]"),
        (b"[] x", 0, b"x"),
        (b"[" * 100_000, 0, b"[" * 99_999),
    ],
)
def test_split_elements_gives_what_is_left_of_a_broken_array(text, count, left):
    for size in (1 << 20,) if len(text) > 1000 else (1, 2, 1 << 20):
        pieces = split(text, size)
        assert [whole for _, whole in pieces] == [True] * count + [False]
        assert pieces[-1][0] == left


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (b"", []),
        (b" \n", []),
        (b"[ ]", []),
        (b'{\n"a": 1}\n{}', [(b'{\n"a": 1}\n{}', True)]),
        (b"5", [(b"5", True)]),
    ],
)
def test_split_elements_of_what_is_no_array_is_one_piece(text, pieces):
    assert split(text) == pieces


def test_split_elements_above_the_bound_breaks_the_array(monkeypatch):
    monkeypatch.setattr(json_arrays, "MAX_ELEMENT", 100)
    monkeypatch.setattr(json_arrays, "_CHUNK", 10)
    fits, large = json.dumps("x" * 90).encode(), json.dumps("x" * 200).encode()
    assert split(b"[" + b",".join([fits] * 3) + b"]") == [(fits, True)] * 3
    assert split(b"[" + fits + b"," + large + b"]") == [(fits, True), (large[:100], False)]
    assert split(b'{"a": ' + large) == [((b'{"a": ' + large)[:100], False)]


def rows_of(*paths):
    batch = pa.RecordBatch.from_pydict({"source": [f"file://{path}" for path in paths]})
    return pa.Table.from_batches(read_elements([batch]), ELEMENTS).to_pylist()


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize(
    ("end", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", zstd)]
)
def test_read_elements_unpacks_files_of_several_parts(tmp_path, end, pack):
    path = tmp_path / f"a.json.{end}"
    path.write_bytes(pack(b"[1, 2, ") + pack(b"3]"))
    assert [row["payload"] for row in rows_of(path)] == [b"1", b"2", b"3"]
    path.write_bytes(pack(json.dumps(list(range(5000))).encode())[:-30])
    with pytest.raises(RunError, match=rf"inputs: file://.*a\.json\.{end} cannot be read: Trunc"):
        rows_of(path)


def test_read_elements_numbers_each_file_through_its_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(json_arrays, "_BATCH_ROWS", 7)
    for name in "ab":
        (tmp_path / name).write_text(json.dumps([name] * 30))
    found = [
        (row["source"][-1], row["source_row"]) for row in rows_of(tmp_path / "a", tmp_path / "b")
    ]
    assert found == [(name, number) for name in "ab" for number in range(30)]
