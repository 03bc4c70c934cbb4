"""A data set's file is read as it was meant, and what is wrong with it is said with its line."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui import dataset
from llava_tui.dataset import DatasetError, chunk, read, rounds_of, within_folder
from llava_tui.plan import Plan, from_dict
from llava_tui.session.items import read_items, write_items
from llava_tui.session.reader import SessionError
from llava_tui.session_files import Item


def written(tmp_path: Path, text: str | bytes, name: str = "set.jsonl") -> Path:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_json_lines_with_paths_prompts_and_ids(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '{"path": "clips/a.mp4", "prompt": "What?", "id": 7, "label": "cat"}\n\n'
        '{"path": ["x.png", "/y.png"], "id": "pair"}\r\n'
        '{"prompt": null, "path": "demo"}',
    )
    assert read(file) == [
        Item(f"{tmp_path}/clips/a.mp4", "What?", "7"),
        Item((f"{tmp_path}/x.png", "/y.png"), "", "pair"),
        Item("demo"),
    ]
    assert [item.name for item in read(file)] == ["7", "pair", "demo"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_however_a_spreadsheet_writes_it(tmp_path: Path, delimiter: str, end: str, mark: str) -> None:
    rows = [
        ["ID", "prompt", "Path", "label"],
        ["1", f'"What, {delimiter} ""where""?"', "a.mp4", "x"],
        ["", "", "", ""],
        ["2", "", "b c.mp4"],
    ]
    file = written(tmp_path, mark + end.join(delimiter.join(row) for row in rows) + end + end, "set.csv")
    assert read(file) == [
        Item(f"{tmp_path}/a.mp4", f'What, {delimiter} "where"?', "1"),
        Item(f"{tmp_path}/b c.mp4", "", "2"),
    ]


def test_a_prompt_over_several_lines_keeps_them_and_later_lines_their_numbers(tmp_path: Path) -> None:
    file = written(tmp_path, 'path,prompt\na.mp4,"one\ntwo"\nb.mp4,x\n,y\n', "set.csv")
    with pytest.raises(DatasetError, match="line 5: no path"):
        read(file)
    assert read(written(tmp_path, 'path,prompt\na.mp4,"one\ntwo"\n', "set.csv"))[0].prompt == "one\ntwo"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"path": "a"}\n{"path": \n', "line 2: not a JSON object"),
        ("a.jsonl", '{"path": "a"}\n"b"\n', "line 2: not a JSON object"),
        ("a.jsonl", '{"video": "a"}\n', "line 1: no path"),
        ("a.jsonl", '\n{"path": []}\n', "line 2: no path"),
        ("a.jsonl", '{"path": ["a", 3]}\n', "line 1: no path"),
        ("a.jsonl", '{"path": "a", "prompt": 3}\n', "line 1: prompt is no text"),
        ("a.jsonl", '{"path": "a", "id": 1.5}\n', "line 1: id is neither"),
        ("a.json", '[{"path": "a"}]\n', "line 1: one JSON array; write an object a line: jq"),
        ("a.jsonl", "", "no item in it"),
        ("a.csv", "", "no item in it"),
        ("a.csv", "path,prompt\n", "no item in it"),
        ("a.csv", "a.mp4,what?\n", "line 1: no column is called path"),
        ("a.csv", "\npath,path\na,b\n", "line 2: two columns have the same name"),
        ("a.csv", "path,prompt\na.mp4,Hello, you\n", "line 2: 3 fields under 2 columns"),
        ("a.csv", 'path,prompt\na.mp4,"Hello\n', "line 2: not CSV"),
        ("a.csv", b"path\na.mp4\n\xff\xfe\n", "line 3: not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_file_and_its_line(
    tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    with pytest.raises(DatasetError) as error:
        read(written(tmp_path, text, name))
    assert said in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_home_that_nobody_has_is_a_path_like_others(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('{"path": "~nobody-at-all/clip.mp4"}\n')
    assert [item.path for item in dataset.read(file)] == [str(tmp_path / "~nobody-at-all/clip.mp4")]
    assert dataset.items_of(Plan(inputs=("~nobody-at-all/clip.mp4",))) == []
    with pytest.raises(dataset.DatasetError, match="no such file"):
        dataset.read(Path("~nobody-at-all/set.jsonl"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.jsonl: no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(DatasetError, match="is a folder; give a folder of videos with --input"):
        read(tmp_path)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
paths = texts.filter(lambda path: path.strip() and not path.startswith("~"))


@given(st.lists(st.tuples(paths, texts, texts), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_whatever_json_lines_are_written_come_back(tmp_path_factory: pytest.TempPathFactory, records: list) -> None:
    folder = tmp_path_factory.mktemp("set")
    lines = [json.dumps({"path": "/" + path, "prompt": prompt, "id": id_}) for path, prompt, id_ in records]
    items = read(written(folder, "\n".join(lines)))
    assert [(item.prompt, item.id) for item in items] == [record[1:] for record in records]
    digest = write_items(folder, items)
    assert read_items(folder, digest) == items


def test_items_that_were_changed_are_refused(tmp_path: Path) -> None:
    digest = write_items(tmp_path, [Item("a"), Item("b")])
    with open(tmp_path / "items.jsonl", "a") as file:
        file.write('{"path":"c"}\n')
    with pytest.raises(SessionError, match="not what it was"):
        read_items(tmp_path, digest)
    assert len(read_items(tmp_path)) == 3


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_hundred_thousand_items_are_read_within_seconds(tmp_path: Path, kind: str) -> None:
    lines = [f'{{"path": "clips/{i}.mp4", "prompt": "What, {i}?"}}' for i in range(100_000)]
    if kind == "csv":
        lines = ["path,prompt", *(f'clips/{i}.mp4,"What, {i}?"' for i in range(100_000))]
    file = written(tmp_path, "\n".join(lines), f"set.{kind}")
    begin = time.process_time()
    items = read(file)
    assert time.process_time() - begin < 5
    assert len(items) == 100_000
    assert items[-1].prompt == "What, 99999?"


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_videos_is_many_items_and_one_of_images_is_a_clip(tmp_path: Path) -> None:
    for name in ("clip10.mp4", "clip2.MKV", ".hidden.mp4", "notes.txt", "clip1.webm"):
        (tmp_path / name).touch()
    assert [path.name for path in within_folder(tmp_path)] == ["clip1.webm", "clip2.MKV", "clip10.mp4"]
    frames = tmp_path / "frames"
    for clip in ("b", "a"):
        (frames / clip).mkdir(parents=True)
        (frames / clip / "0.png").touch()
    (frames / "empty").mkdir()
    assert [path.name for path in within_folder(frames)] == ["a", "b"]
    assert within_folder(frames / "a") == []
    assert within_folder(tmp_path / "clip1.webm") == []
    assert [path.name for path in within_folder(tmp_path)] == ["clip1.webm", "clip2.MKV", "clip10.mp4", "frames"][:3]


def test_a_folder_among_inputs_makes_them_a_data_set_and_files_alone_do_not(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    many = from_dict({"inputs": ["demo", str(tmp_path)]})
    assert [item.name for item in dataset.items_of(many)] == ["demo", "a.mp4", "b.mp4"]
    assert dataset.items_of(from_dict({"inputs": [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]})) == []
    assert dataset.items_of(Plan()) == []


def test_a_folder_of_event_streams_is_many_items_for_eventgpt(tmp_path: Path) -> None:
    for name in ("b.npy", "a.h5", "c.mp4", "d.hdf5"):
        (tmp_path / name).touch()
    plan = from_dict({"pipeline": "eventgpt", "inputs": [str(tmp_path)]})
    assert [item.name for item in dataset.items_of(plan)] == ["a.h5", "b.npy", "d.hdf5"]


# --- which items a run takes ------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_all_ranks_together_take_every_item_once_a_pass(count: int, batch: int, world: int) -> None:
    taken: list[int] = []
    rounds = rounds_of(count, batch, world)
    for rank in range(world):
        mine = [chunk(round_, count, batch, rank, world) for round_ in range(rounds)]
        assert chunk(rounds, count, batch, rank, world) == mine[0], "the next pass begins where this one did"
        assert all(each.start % batch == 0 or not each for each in mine)
        assert all(len(each) == batch for each in mine if each and each.stop < count)
        taken += [item for each in mine for item in each]
    assert sorted(taken) == list(range(count))
    assert chunk(rounds - 1, count, batch, 0, world), "no round is for nothing"
