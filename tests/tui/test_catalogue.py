"""The list of sessions and what is known of each: read again where something changed, and nowhere else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from screen_sessions import LOADING, MS, WALL, Recording, course, record

from llava_tui.events import Notes
from llava_tui.report import sides
from llava_tui.session import store
from llava_tui.session.reader import SessionError
from llava_tui.tui import catalogue, digests
from llava_tui.tui.catalogue import Catalogue
from llava_tui.tui.digests import Digests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sessions that ended long ago."""
    for number, name in enumerate(("20260101-000000-a", "20260102-000000-b", "20260103-000000-c")):
        age(record(tmp_path / "all" / name, course(runs=4), wall0=1_767_225_600_000_000_000 + number * 10**9))
    return tmp_path / "all"


def age(path: Path) -> Path:
    """As if nothing had happened in that folder for a while."""
    then = time.time() - 60
    os.utime(path, (then, then))
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sessions that are looked into, as it happens."""
    names: list[str] = []
    info = store.info

    def counted(path: Path) -> store.SessionInfo:
        names.append(path.name)
        return info(path)

    monkeypatch.setattr(catalogue.store, "info", counted)
    return names


def ids(infos: list[store.SessionInfo] | None) -> list[str] | None:
    return None if infos is None else [info.id[-1:] for info in infos]


def test_only_sessions_in_which_something_changed_are_looked_into_again(folder: Path, read: list[str]) -> None:
    kept = Catalogue(folder)
    assert ids(kept.refresh()) == ["c", "b", "a"]
    assert len(read) == 3
    assert kept.refresh() is None
    assert len(read) == 3
    store.set_notes(folder / "20260102-000000-b", Notes(name="noted by somebody"))
    found = kept.refresh()
    assert found is not None
    assert [info.notes.name for info in found] == ["", "noted by somebody", ""]
    assert read[3:] == ["20260102-000000-b"]
    # What changed a moment ago may change again before the file system's clock tells.
    assert kept.refresh() is None
    assert read[4:] == ["20260102-000000-b"]


def test_the_list_is_what_the_command_line_lists(folder: Path) -> None:
    (folder / "20260105-000000-damaged").mkdir()
    (folder / "20260105-000000-damaged" / "session.json").write_text("{")
    (folder / "nobody's").mkdir()
    (folder / "file").touch()
    kept = Catalogue(folder)
    assert kept.refresh() == store.list_sessions(folder)
    store.delete(folder / "20260101-000000-a")
    record(folder / "20260107-000000-d", course(runs=2))
    assert kept.refresh() == store.list_sessions(folder)


def test_a_folder_that_is_not_there_has_no_sessions_and_one_that_comes_has(tmp_path: Path) -> None:
    kept = Catalogue(tmp_path / "later")
    assert kept.refresh() == []
    assert kept.refresh() is None
    record(tmp_path / "later" / "one", course(runs=2))
    assert ids(kept.refresh()) == ["e"]
    (tmp_path / "file").touch()
    with pytest.raises(SessionError, match="cannot read"):
        Catalogue(tmp_path / "file").refresh()


def test_a_live_session_is_followed_though_nothing_in_its_folder_is_made(
    live: Callable[..., Recording],
) -> None:
    recording = live()
    recording.write_until(LOADING)
    kept = Catalogue(recording.path.parent)
    (first,) = kept.refresh() or []
    age(recording.path)
    recording.write_until(LOADING + 2 * WALL)
    (grown,) = kept.refresh() or []
    assert grown.runs_done > first.runs_done
    recording.write_until(1 << 62)
    recording.close()
    (ended,) = kept.refresh() or []
    assert ended.status == "finished"
    assert kept.refresh() is None


# --- what is read whole ---------------------------------------------------------------------------------------------


class Reading:
    """Digests of a folder's sessions, and the way to wait for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        self._some = threading.Condition()
        self.digests = Digests(self._done)

    def _done(self, path: Path) -> None:
        with self._some:
            self.told.append(path.name)
            self._some.notify_all()

    def want(self, *names: str, tables: str = "", baseline: tuple[str, ...] = ()) -> None:
        infos = {info.id: info for info in store.list_sessions(self.folder)}
        wanted = [infos[name] for name in names]
        self.digests.want(wanted, infos.get(tables), [self.folder / name for name in baseline])

    def wait_for(self, count: int) -> None:
        with self._some:
            assert self._some.wait_for(lambda: len(self.told) >= count, 20), self.told


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setenv("LLAVA_TUI_DATA", str(tmp_path / "no calibration"))
    made = Reading(tmp_path)
    yield made
    made.digests.end()


def test_sessions_are_read_once_in_the_order_that_they_are_wanted(reading: Reading) -> None:
    for name in "abc":
        record(reading.folder / name, course(runs=12))
    reading.want("b", "a", tables="c")
    reading.wait_for(3)
    assert reading.told == ["c", "b", "a"]
    for name in "abc":
        digest = reading.digests.of(reading.folder / name)
        assert digest is not None
        assert digest.grade == max(trust.grade or "" for trust in digest.trust.values())
        assert digest.cases == ("f1-b1-n16", "f4-b1-n16")
        assert (reading.digests.tables(reading.folder / name) is not None) == (name == "c")
    reading.want("b", "a", tables="a")
    reading.wait_for(4)
    assert reading.told == ["c", "b", "a", "a"]


def test_the_verdict_is_against_the_pinned_baseline_and_follows_it(reading: Reading) -> None:
    for name, ms in (("base", MS), ("slow", MS * 3 // 2), ("same", MS)):
        record(reading.folder / name, course(runs=40, ms=ms))
    record(reading.folder / "simulated", course(runs=40), provenance="simulated")
    reading.want("slow", "same", "simulated", "base", baseline=("base",))
    reading.wait_for(4)
    slow, same, simulated, base = (
        reading.digests.of(reading.folder / name) for name in ("slow", "same", "simulated", "base")
    )
    assert slow is not None
    assert (slow.verdict, round(slow.effect or 0.0, 1)) == ("slower", 0.5)
    assert slow.sentence.startswith("this session is 50 % slower than the baseline")
    assert same is not None
    assert same.verdict == "inconclusive"  # one session a side claims large effects only
    assert simulated is not None
    assert base is not None
    assert (simulated.verdict, base.verdict) == ("", "")
    sides.pin(reading.folder, [reading.folder / "slow"])
    reading.want("same", baseline=("slow",))
    reading.wait_for(5)
    faster = reading.digests.of(reading.folder / "same")
    assert faster is not None
    assert faster.verdict == "faster"


def test_what_cannot_be_read_says_why_and_holds_nothing_up(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    record(reading.folder / "good", course(runs=4))
    record(reading.folder / "bad", course(runs=4))
    infos = store.list_sessions(reading.folder)
    (reading.folder / "bad" / "session.json").write_text("{")
    reading.digests.want(sorted(infos, key=lambda info: info.id))
    reading.wait_for(2)
    bad, good = (reading.digests.of(reading.folder / name) for name in ("bad", "good"))
    assert bad is not None
    assert good is not None
    assert "damaged" in bad.problem
    assert good.grade


def test_a_session_that_grows_is_not_read_again_and_again(
    live: Callable[..., Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = live()
    recording.write_until(LOADING + 4 * WALL)
    reading = Reading(recording.path.parent)
    monkeypatch.setattr(digests, "LIVE_EVERY_S", 3600.0)
    reading.want(recording.path.name)
    reading.wait_for(1)
    recording.write_until(LOADING + 6 * WALL)
    record(reading.folder / "after", course(runs=2))
    reading.want(recording.path.name, "after")
    reading.wait_for(2)
    assert reading.told == [recording.path.name, "after"]
    recording.close()
    reading.want(recording.path.name)
    reading.wait_for(3)
    reading.digests.end()
