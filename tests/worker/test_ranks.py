"""Several ranks that measure one session: real processes under each of their launchers, and what they say to each
other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llava_tui.plan import PlanError, from_dict
from llava_tui.session import control, store
from llava_tui.session.timeline import Timeline
from llava_tui.worker.by_hand import place_in
from llava_tui.worker.ranks import ALONE, Over, Place, RankLost, Ranks, Together, Word

PATIENCE_S = 100.0
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
]

# --- in real processes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from llava_tui.pipelines.checkpoints import build_tiny

    return build_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from llava_tui.pipelines.checkpoints import synthesise_video

    return synthesise_video(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1)


class Launched:
    """Ranks on a plan, started as a user does."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.process = process

    @property
    def path(self) -> Path:
        """The session's folder, once it has a header."""
        self.until(lambda: any(self.folder.glob("*/session.json")), "the session")
        (path,) = self.folder.iterdir()
        return path

    def until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"never came: {what}"
            assert self.process.poll() is None or condition(), f"ended before {what}: {self.process.communicate()}"
            time.sleep(0.02)

    def measuring(self, runs: int = 2) -> None:
        """Until each rank has ended that many runs beside its load."""
        path = self.path
        self.until(lambda: all(self.runs(path, rank) > runs for rank in (0, 1)), "runs of both ranks")

    @staticmethod
    def runs(path: Path, rank: int) -> int:
        timeline = Timeline.open(path)
        return timeline.of(rank).runs.n if rank in timeline.ranks else 0

    def end(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said


@pytest.fixture
def launch(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Launched]]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # torchrun leaves a folder there
    begun: list[subprocess.Popen[str]] = []

    def make(launcher: list[str], **values: Any) -> Launched:
        fixed = {"model": str(model), "frames": [1], "new_tokens": [4], "device": "cpu", "warmup": 1}
        plan = from_dict(fixed | {"self_test": False, "cool_down": False, "rounds": 3} | values)
        (tmp_path / "plan.toml").write_text(plan.to_toml(), encoding="utf-8")
        words = ["-m", "llava_tui.worker", "--plan", "plan.toml", "--sessions", "sessions"]
        process = subprocess.Popen(
            [sys.executable, *launcher, *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        return Launched(tmp_path / "sessions", process)

    yield make
    for process in begun:
        ended = process.poll() is not None
        with_it = [] if ended else psutil.Process(process.pid).children(recursive=True)
        for each in with_it:
            each.kill()
        process.kill()
        process.communicate()


def worker_of(rank: int, path: Path) -> int:
    """The process of a rank: the one that writes its stream."""
    stream = path / (f"events-{rank}.jsonl" if rank else "events.jsonl")
    for process in psutil.process_iter():
        try:
            if any(file.path == str(stream) for file in process.open_files()):
                return process.pid
        except psutil.Error:
            pass
    raise AssertionError(f"nobody writes {stream}")


def remaining(path: Path) -> list[int]:
    """Processes that still have one of the session's files open."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(file.path.startswith(str(path)) for file in process.open_files()):
                found.append(process.pid)
        except psutil.Error:
            pass
    return found


@pytest.mark.models
@pytest.mark.timeout(300)
def test_two_ranks_under_torchrun_share_a_data_set_in_step_and_show_puts_them_side_by_side(
    launch, clip: Path, tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for number in range(5):
        shutil.copy(clip, clips / f"clip{number}.mp4")
    launched = launch(TORCHRUN, inputs=[str(clips)], rounds="auto")
    code, said = launched.end()
    assert code == 0, said
    path = launched.path
    assert f"session {path}" in said
    assert said.rstrip().endswith("finished")
    assert store.status(path) == "finished"
    timeline = Timeline.open(path)
    assert timeline.ranks == [0, 1]
    first, second = (timeline.of(rank).now() for rank in (0, 1))
    told = [
        {row["run"]: (row["kind"], row["case"], row["round"]) for row in view.runs.rows()} for view in (first, second)
    ]
    assert all(told[0][run] == what for run, what in told[1].items()), "the same runs, by the same numbers"
    assert [row["outcome"] for row in timeline.runs.rows()] == ["ok"] * timeline.runs.n
    assert (second.state, second.model.extra["rank"], second.model.extra["ranks"]) == ("closed", 1, 2)
    measured = [[row for row in view.runs.rows() if row["kind"] == "measured"] for view in (first, second)]
    assert [[row["items"] for row in rows] for rows in measured] == [[[0], [2], [4]], [[1], [3]]]
    for one, other in zip(*measured, strict=False):  # each is measured while the other is
        assert max(one["start"], other["start"]) < min(one["start"] + one["wall"], other["start"] + other["wall"])
    assert len({str(row["token_ids"]) for rows in measured for row in rows}) == 1, "the same clip, the same tokens"
    assert not remaining(path)

    shown = subprocess.run(
        [sys.executable, "-P", "-m", "llava_tui", "show", str(path)], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert "2 ranks" in shown
    assert [line[0] for line in lines if line[1:2] == ["cpu"]] == ["0", "1"]
    assert "items/s together, in 3 runs" in shown


@pytest.mark.models
@pytest.mark.timeout(300)
def test_ranks_under_accelerate_launch_are_stopped_together_in_the_middle_of_a_run(launch) -> None:
    launched = launch(ACCELERATE, rounds=5000)
    launched.measuring()
    path = launched.path
    control.send(path, "stop-now", author="tester@here")
    code, said = launched.end()
    assert code == 0, said
    timeline = Timeline.open(path)
    for rank in (0, 1):
        assert timeline.of(rank).now().states.row(-1)["reason"] == "stopped by tester@here"
    assert store.status(path) == "stopped"
    assert timeline.of(0).runs["run"].tolist() == timeline.of(1).runs["run"].tolist()
    assert [bool(accepted) for accepted in timeline.answers["accepted"]] == [True]
    assert not remaining(path)


@pytest.mark.models
@pytest.mark.timeout(300)
def test_a_rank_that_is_killed_ends_the_session_with_its_name_and_leaves_nobody_behind(launch) -> None:
    launched = launch(["-P"], rounds=5000, processes=2)
    launched.measuring()
    path = launched.path
    os.kill(worker_of(1, path), signal.SIGKILL)
    code, said = launched.end()
    assert code == 3
    assert "failed: rank 1 was killed by SIGKILL" in said
    assert store.status(path) == "failed"
    timeline = Timeline.open(path)
    # What the others did not run to its end beside is not counted.
    last = timeline.of(0).runs.row(-1)
    assert last["kind"] == "discarded" or last["outcome"] != "ok" or last["run"] <= timeline.of(1).runs["run"].max()
    assert not remaining(path)


# --- what they say ----------------------------------------------------------------------------------------------------


def environment(**changes: str) -> dict[str, str]:
    told = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    return told | changes


def test_the_place_among_the_ranks_is_what_the_launcher_says() -> None:
    assert place_in({}) == ALONE
    assert place_in(environment()) == Place(1, 2, 1)
    assert place_in(environment(TORCHELASTIC_RESTART_COUNT="0")) == Place(1, 2, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"LOCAL_WORLD_SIZE": "1"}, "--nnodes 1"),
        ({"TORCHELASTIC_RESTART_COUNT": "1"}, "--max-restarts 0"),
        ({"RANK": "2"}, "RANK 2"),
        ({"RANK": "first"}, "torchrun or accelerate launch"),
    ],
)
def test_ranks_that_cannot_measure_together_are_refused_with_what_to_do(changes: dict[str, str], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        place_in(environment(**changes))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pipeline": "simulated"}, "a simulation is of one process"),
        ({"device": "cuda:1"}, "use cuda$"),
        ({"device_map": "auto"}, "use one of both"),
    ],
)
def test_a_plan_for_ranks_that_cannot_have_a_device_each_is_refused(values: dict[str, Any], words: str) -> None:
    from_dict(values)
    with pytest.raises(PlanError, match=words):
        from_dict(values | {"processes": 2})


def test_a_restarted_worker_leaves_the_session_alone_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "llava_tui.worker", "--plan", "plan.toml", "--sessions", "s"],
        cwd=tmp_path,
        env=os.environ | environment(RANK="0", TORCHELASTIC_RESTART_COUNT="1"),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("llava-tui: a session is recorded in one go")
    assert not (tmp_path / "s").exists()


class Scripted(Ranks):
    """Ranks whose other words are given."""

    def __init__(self, place: Place, others: dict[int, Word]) -> None:
        super().__init__(place)
        self.others = others

    def speak(self, word: Word) -> list[Word]:
        return [self.others.get(rank, word) for rank in range(self.place.world)]


def test_of_a_run_all_ranks_make_the_worst_of_what_any_made_of_it() -> None:
    fine, short = Word(), Word(outcome="out-of-memory", reason="rank 2: no room")
    cut = Word(outcome="cancelled", reason="rank 1: stopped")
    told = Scripted(Place(0, 3), {1: cut, 2: short}).agree("ok", "")
    assert (told.outcome, told.reason) == ("out-of-memory", "rank 2: no room")
    told = Scripted(Place(1, 3), {0: fine, 2: fine}).agree("failed", "own")
    assert (told.outcome, told.reason) == ("failed", "own")
    told = Scripted(Place(0, 2), {1: Word(taken_back="rank 1: hot")}).agree("ok", "")
    assert (told.outcome, told.taken_back) == ("ok", "rank 1: hot")


def test_a_case_that_one_rank_cannot_run_no_rank_runs() -> None:
    ranks = Scripted(Place(0, 2), {1: Word(refused={"b": "rank 1: too long"})})
    assert ranks.refuse({"a": "too large"}) == {"a": "too large", "b": "rank 1: too long"}


def test_a_rank_that_leaves_is_named_and_the_first_ranks_end_is_heard() -> None:
    class Heard(Together):
        def __init__(self, place: Place, words: list[Word]) -> None:
            super().__init__(place)
            self.words = words

        def _gather(self, data: bytes, size: int) -> list[bytes]:
            import msgspec

            coded = [msgspec.json.encode(word) for word in self.words]
            return [(len(one).to_bytes(8, "little") + one).ljust(size, b"\0") for one in coded]

    with pytest.raises(RankLost, match="rank 1: the device was lost"):
        Heard(Place(0, 2), [Word(), Word(lost="the device was lost")]).speak(Word())
    with pytest.raises(Over, match="as planned") as over:
        Heard(Place(1, 2), [Word(final="closed", reason="as planned"), Word()]).speak(Word())
    assert over.value.state == "closed"
    heard = Heard(Place(0, 2), [Word(reason="mine"), Word(reason="theirs")]).speak(Word())
    assert [word.reason for word in heard] == ["mine", "rank 1: theirs"]


def test_alone_nobody_is_spoken_to() -> None:
    ranks = Ranks()
    assert ranks.leads
    assert ranks.meet("folder") == "folder"
    assert ranks.agree("failed", "why", "hot").reason == "why"
    assert ranks.refuse({"a": "b"}) == {"a": "b"}
    assert ranks.leave("closed", "") == ("closed", "")
