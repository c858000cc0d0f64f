"""The export step: what trainers read, in every form and file type."""

import json

import pyarrow.parquet as pq
import pytest
import yaml

from handmade import put, recorded, rows_of, sample
from tagsieve.errors import RunError
from tagsieve.lake import Lake
from tagsieve.reporting import ExportConfig, export, files

CONVERSATIONS = {
    # In order of rank; ids and rows are not.
    "s3": [("system", "Be brief"), ("user", 'Say "hi"\n你好 🙂'), ("assistant", "hi\t\\o/")],
    "s1": [("user", "Translate\nbon jour\n!"), ("assistant", "good day !")],
    "s9": [
        ("user", "one"),
        ("assistant", "1"),
        ("user", "two\n2?"),
        ("assistant", "2"),
        ("user", "three"),
        ("assistant", "3"),
    ],
    "s4": [("user", "weather"), ("assistant", "call"), ("tool", "rain"), ("assistant", "rain.")],
    "s2": [("user", "Say it:\nbonjour le monde"), ("assistant", "ok")],
    "s8": [("user", "first"), ("user", "second"), ("assistant", "both")],
    "s7": [("user", "no answer")],
    "s6": [("system", "only me")],
}
METAS = {"s1": {"input": "bon jour\n!"}, "s2": {"input": "le monde"}, "s3": {"input": ""}}
NAMES = {"user": "human", "assistant": "gpt", "system": "system", "tool": "observation"}
ALPACA = ["s3", "s1", "s9", "s2"]


def alpaca(key, instruction, output, extra="", system="", history=()):
    record = {"id": key, "pool": "p", "instruction": instruction, "input": extra, "output": output}
    return record | {"system": system, "history": [list(pair) for pair in history]}


ALPACA_RECORDS = [
    alpaca("s3", 'Say "hi"\n你好 🙂', "hi\t\\o/", system="Be brief"),
    alpaca("s1", "Translate", "good day !", extra="bon jour\n!"),
    alpaca("s9", "three", "3", history=[("one", "1"), ("two\n2?", "2")]),
    alpaca("s2", "Say it:\nbonjour le monde", "ok"),
]


def select_rows(*keys, name="mine"):
    """Rows of `selections`, the best first; put in another order."""
    row = {"selection": name, "pool": "p", "score": 1.0, "reason": "pass 1", "run_id": "by hand"}
    return [row | {"sample_id": key, "rank": rank} for rank, key in enumerate(keys)][::-1]


@pytest.fixture(scope="module")
def full_lake(tmp_path_factory):
    """A lake with one selection of all conversations above."""
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    rows = [
        sample("p", key, turns=CONVERSATIONS[key], meta=METAS.get(key), row=row)
        for row, key in enumerate(sorted(CONVERSATIONS))
    ]
    # The same conversation in another pool is not exported twice.
    put(lake, "samples", [*rows, sample("q", "s1", turns=CONVERSATIONS["s1"])])
    put(lake, "selections", select_rows(*CONVERSATIONS))
    return lake


@pytest.fixture(scope="module")
def run_export(full_lake, engines):
    def run(path, run_id, selection="mine", formats=("sharegpt",), kinds=("jsonl",)):
        config = ExportConfig(path=str(path), formats=formats, files=kinds)
        recipe = '{"lake": "é"}'
        return recorded(full_lake, engines, "export", run_id, export, config, [selection], recipe)

    return run


@pytest.fixture(scope="module")
def exported(run_export, tmp_path_factory):
    """Everything that can be exported, and its line of the ledger."""
    path = tmp_path_factory.mktemp("out") / "deep" / "er"
    forms = ("sharegpt", "alpaca", "messages")
    return path, run_export(path, "all", formats=forms, kinds=("jsonl", "parquet"))


def lines(folder):
    """Lines of all files in a folder, in the order of their names."""
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"{number:05d}.jsonl" for number in range(len(names))]
    return [line for name in names for line in (folder / name).read_text("utf-8").splitlines()]


def test_export_sharegpt_is_the_turns_by_rank(exported):
    path, _ = exported
    found = lines(path / "sharegpt")
    assert found[0] == (
        '{"id":"s3","pool":"p","conversations":[{"from":"system","value":"Be brief"},'
        '{"from":"human","value":"Say \\"hi\\"\\n你好 🙂"},'
        '{"from":"gpt","value":"hi\\t\\\\o/"}]}'
    )
    assert [json.loads(line) for line in found] == [
        {
            "id": key,
            "pool": "p",
            "conversations": [{"from": NAMES[role], "value": text} for role, text in turns],
        }
        for key, turns in CONVERSATIONS.items()
    ]


def test_export_messages_is_the_turns_by_rank(exported):
    path, _ = exported
    assert [json.loads(line) for line in lines(path / "messages")] == [
        {"id": key, "pool": "p", "messages": [{"role": r, "content": t} for r, t in turns]}
        for key, turns in CONVERSATIONS.items()
    ]


def test_export_alpaca_splits_input_again_and_leaves_out_what_it_cannot_hold(exported):
    path, run = exported
    found = lines(path / "alpaca")
    assert [json.loads(line) for line in found] == ALPACA_RECORDS
    assert list(json.loads(found[0])) == list(ALPACA_RECORDS[0])
    total, held = len(CONVERSATIONS), len(ALPACA)
    assert (run.unit, run.input, run.kept) == ("row", 3 * total, 2 * total + held)
    assert run.rejected == {"not_alpaca": total - held}


def test_export_parquet_holds_the_same_rows_as_jsonl(exported):
    path, _ = exported
    for form in ("sharegpt", "alpaca", "messages"):
        table = pq.read_table(path / f"{form}_parquet" / "00000.parquet")
        assert table.to_pylist() == [json.loads(line) for line in lines(path / form)]


def test_export_dataset_info_names_each_folder_and_its_columns(exported):
    path, _ = exported
    info = json.loads((path / "dataset_info.json").read_text())
    assert {key: value["file_name"] for key, value in info.items()} == {
        "mine_sharegpt_jsonl": "sharegpt",
        "mine_sharegpt_parquet": "sharegpt_parquet",
        "mine_alpaca_jsonl": "alpaca",
        "mine_alpaca_parquet": "alpaca_parquet",
        "mine_messages_jsonl": "messages",
        "mine_messages_parquet": "messages_parquet",
    }
    for value in info.values():
        (first, *_), columns = lines_or_rows(path / value["file_name"]), value["columns"]
        assert set(columns.values()) <= set(first)
    assert info["mine_alpaca_jsonl"]["columns"]["query"] == "input"
    assert info["mine_sharegpt_jsonl"]["formatting"] == "sharegpt"
    assert info["mine_messages_jsonl"]["tags"]["observation_tag"] == "tool"


def lines_or_rows(folder):
    if folder.name.endswith("parquet"):
        return pq.read_table(folder).to_pylist()
    return [json.loads(line) for line in lines(folder)]


def test_export_card_has_front_matter_counts_and_the_recipe(exported):
    path, _ = exported
    card = (path / "README.md").read_text("utf-8")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "pretty_name": "mine",
        "tags": ["tagsieve", "sft"],
        "tagsieve-run": "all",
        "size_categories": ["n<1K"],
    }
    assert "| p | 8 |" in body
    assert "| alpaca | 4 | `alpaca/`, `alpaca_parquet/` |" in body
    assert "| sharegpt | 8 |" in body
    assert "run `all`" in body
    assert '"lake": "é"' in body


def test_export_leaves_no_temporary_file_or_folder(exported):
    path, _ = exported
    names = {entry.relative_to(path).as_posix() for entry in path.rglob("*")}
    assert {name for name in names if "/" not in name} == {
        "README.md", "dataset_info.json", "alpaca", "alpaca_parquet", "messages",
        "messages_parquet", "sharegpt", "sharegpt_parquet",
    }  # fmt: skip
    assert {name.split("/")[1] for name in names if "/" in name} == {
        "00000.jsonl",
        "00000.parquet",
    }


def test_export_again_is_known_until_its_files_are_gone_then_replaces(
    run_export, full_lake, tmp_path
):
    first = run_export(tmp_path, "r1")
    again = run_export(tmp_path, "r2")
    assert (again.input, again.known, again.kept) == (first.kept, first.kept, 0)

    (tmp_path / "README.md").unlink()
    stale = tmp_path / "_sharegpt.new"
    stale.mkdir()
    (stale / "part-left-over.jsonl").write_text("{}\n")
    (tmp_path / "sharegpt" / "99999.jsonl").write_text("{}\n")
    third = run_export(tmp_path, "r3")
    assert (third.input, third.known, third.kept) == (first.kept, 0, first.kept)
    assert "from_earlier_run" not in third.metrics
    assert len(lines(tmp_path / "sharegpt")) == len(CONVERSATIONS)
    assert "run `r3`" in (tmp_path / "README.md").read_text()
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {"README.md", "dataset_info.json", "sharegpt"}


def test_export_in_several_files_keeps_the_order_of_ranks(run_export, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROWS_PER_FILE", 3)
    run_export(tmp_path, "parts", formats=("messages",))
    assert len(list((tmp_path / "messages").iterdir())) == 3
    found = [json.loads(line)["id"] for line in lines(tmp_path / "messages")]
    assert found == list(CONVERSATIONS)


def test_export_alpaca_of_no_conversation_that_fits_writes_an_empty_set(
    run_export, full_lake, tmp_path
):
    put(full_lake, "selections", select_rows("s4", "s8", name="tools"))
    run = run_export(tmp_path, "none", selection="tools", formats=("alpaca",))
    assert (run.input, run.kept, run.rejected) == (2, 0, {"not_alpaca": 2})
    assert lines(tmp_path / "alpaca") == []
    assert "| alpaca | 0 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("below", ["file", "file/deep"])
def test_export_below_a_plain_file_names_the_setting(run_export, full_lake, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    run_id = f"refused {below}"
    with pytest.raises(RunError, match=r"export.path=.*file.*: cannot be written"):
        run_export(tmp_path / below, run_id)
    assert rows_of(full_lake, "runs", run_id=run_id)[0]["status"] == "failed"
    assert (tmp_path / "file").read_text() == "mine"


def test_export_of_a_selection_that_is_not_there_names_the_step(run_export, tmp_path):
    with pytest.raises(RunError, match=r"no selection 'other'; run the step select"):
        run_export(tmp_path / "out", "other", selection="other")
    assert not (tmp_path / "out").exists()


def test_export_back_to_an_earlier_config_replaces_the_files(run_export, tmp_path):
    for run_id, form in (("a", "sharegpt"), ("b", "messages"), ("c", "sharegpt")):
        run_export(tmp_path, run_id, formats=(form,))
    assert (tmp_path / "sharegpt").exists()
    assert not (tmp_path / "messages").exists()


def test_export_stores_what_a_form_cannot_hold_in_rejects(run_export, tmp_path, full_lake):
    run = run_export(tmp_path, "alpaca only", formats=("alpaca",))
    stored = [row for row in rows_of(full_lake, "rejects") if row["run_id"] == run.run_id]
    assert {row["reason"] for row in stored} == {"not_alpaca"}
    assert len(stored) == run.rejected["not_alpaca"] == len(CONVERSATIONS) - len(ALPACA)
