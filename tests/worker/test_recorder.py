"""Spans from marks: sums, nesting, sides, tokens, peaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_tui.events import StageHint, StageInfo, TextHint
from llava_tui.pipelines.base import LLAVA_STAGES
from llava_tui.worker.clock import DeviceClock, HostClock, SimulatedClock
from llava_tui.worker.recorder import HINT_EVERY_NS, Recorder, TextTail

TREE = (
    StageInfo("a", "a"),
    StageInfo("a.x", "x"),
    StageInfo("a.x.deep", "deep"),
    StageInfo("a.y", "y"),
    StageInfo("b", "b"),
    StageInfo("b.z", "z"),
)
CHILDREN = {"": ["a", "b"], "a": ["a.x", "a.y"], "a.x": ["a.x.deep"], "b": ["b.z"]}


def nested(parent=""):
    """A random run: a list of (stage, ns before, its own run, ns after)."""
    children = CHILDREN.get(parent)
    if not children:
        return st.just([])
    return st.lists(
        st.one_of(
            *(
                st.tuples(st.just(child), st.integers(0, 10**9), nested(child), st.integers(0, 10**9))
                for child in children
            )
        ),
        max_size=4,
    )


@given(nested(), st.integers(0, 10**9))
def test_any_nesting_adds_up(run, tail):
    clock = SimulatedClock(0, start=10**12)
    recorder = Recorder(TREE, clock, lambda: None, capacity=2)
    truth, first = dict.fromkeys(info.path for info in TREE), {}
    recorder.start(1)

    def play(calls):
        for path, before, inner, after in calls:
            clock.advance(before)
            begin = clock.now()
            first.setdefault(path, begin - 10**12)
            recorder.begin(path)
            play(inner)
            clock.advance(after)
            recorder.end(path)
            truth[path] = (truth[path] or 0) + clock.now() - begin

    play(run)
    clock.advance(tail)
    spans = recorder.finish()
    durations = dict(zip(spans.stages, spans.durations, strict=True))
    assert durations == truth, "inclusive, summed over calls; never reached is None, not 0"
    assert dict(zip(spans.stages, spans.starts, strict=True)) == {path: first.get(path) for path in truth}
    for parent, children in CHILDREN.items():
        inside = sum(durations[child] or 0 for child in children)
        assert inside <= (durations[parent] or 0 if parent else spans.wall)
    assert spans.start == 10**12
    assert spans.wall == clock.now() - 10**12


def test_a_run_cut_short_has_no_duration_for_what_was_open():
    clock = SimulatedClock(0, start=0)
    recorder = Recorder(TREE, clock, lambda: None)
    recorder.start(1)
    recorder.begin("a")
    recorder.begin("a.x")
    clock.advance(5)
    recorder.end("a.x")
    recorder.begin("a.y")
    spans = recorder.finish()
    assert spans.durations == [None, 5, None, None, None, None]
    assert spans.starts == [0, 0, None, 5, None, None]
    recorder.start(2)
    assert recorder.finish().durations == [None] * 6, "the next run remembers nothing of it"


def test_a_stage_that_is_not_in_the_tree_is_a_fault():
    recorder = Recorder(TREE, HostClock(), lambda: None)
    recorder.start(1)
    with pytest.raises(KeyError):
        recorder.begin("a.q")


def test_hints_are_few():
    clock = SimulatedClock(0, start=0)
    hints = []
    recorder = Recorder(LLAVA_STAGES, clock, lambda: None, hints.append, lambda ids: "".join(map(chr, ids)))
    recorder.start(4)
    for token in range(100):
        recorder.begin("generate.decode")
        clock.advance(10_000_000)
        recorder.token([65 + token % 26, 0])
        recorder.end("generate.decode")
    recorder.finish()
    text = [hint for hint in hints if isinstance(hint, TextHint)]
    stages = [hint for hint in hints if isinstance(hint, StageHint)]
    assert len(text) == 10
    assert text[-1].tokens == 100
    assert "".join(hint.text for hint in text) == "".join(chr(65 + token % 26) for token in range(100))
    assert 9 <= len(stages) <= 11
    assert all(hint.run == 4 for hint in hints)


@given(
    st.text(st.characters(exclude_characters="\ufffd"), min_size=1, max_size=40),
    st.lists(st.integers(1, 5), max_size=60),
)
def test_pieces_of_a_text_make_the_text(text, sizes):
    """Tokens that are bytes: a character may take four."""
    data = list(text.encode())
    tail = TextTail(lambda ids: bytes(ids).decode("utf-8", "replace"))
    pieces = []
    for size in sizes:
        piece, data = data[:size], data[size:]
        if piece:
            pieces.append(tail.add(piece))
    assert text.startswith("".join(pieces))
    if not data and sizes:
        assert len(text) - len("".join(pieces)) <= 3


class FakeEvent:
    """A device 3 ms behind the host that told it; what it is told takes place in order."""

    device_now = 0.0

    def __init__(self):
        self.at = None

    def record(self, stream):
        self.at = FakeEvent.device_now

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return end.at - self.at


def test_device_stages_are_timed_by_their_device_and_steps_by_their_ends():
    """encode begins on the host (preprocess) and ends on the device (projector); generate the other way round."""
    FakeEvent.device_now = 1000.0
    synchronised = []
    clock = DeviceClock(FakeEvent, lambda: synchronised.append(1), lambda: None, pool=2)
    recorder = Recorder(LLAVA_STAGES, clock, lambda: None)
    recorder.start(1)

    def call(path, device_ms=0.0):
        recorder.begin(path)
        FakeEvent.device_now += device_ms
        recorder.end(path)

    recorder.begin("encode")
    call("encode.preprocess")
    call("encode.h2d", 2)
    call("encode.vision_tower", 40)
    call("encode.projector", 8)
    recorder.end("encode")
    recorder.begin("generate")
    call("generate.prefill", 100)
    recorder.token([1])
    for _ in range(3):
        call("generate.decode", 10)
        recorder.token([1])
    call("generate.detokenize")
    recorder.end("generate")
    spans = recorder.finish()
    of = dict(zip(spans.stages, spans.durations, strict=True))
    begin = dict(zip(spans.stages, spans.starts, strict=True))
    assert of["encode.vision_tower"] == 40_000_000
    assert of["encode.projector"] == 8_000_000
    assert of["generate.decode"] == 30_000_000
    assert of["encode"] == pytest.approx(50e6, abs=5e6), "from the host's clock to the device's"
    assert of["encode.preprocess"] < 5_000_000
    assert begin["generate"] == begin["generate.prefill"] == pytest.approx(50e6, abs=5e6)
    assert of["frames"] is None
    assert spans.token_times[0] == pytest.approx(150e6, abs=5e6)
    assert [b - a for a, b in zip(spans.token_times, spans.token_times[1:], strict=False)] == [10_000_000] * 3
    assert len(synchronised) == 2, "one before the run, one after it"


def test_a_call_costs_microseconds():
    """Far below what would disturb a token of a millisecond, also on a slow machine."""
    clock = HostClock()
    recorder = Recorder(LLAVA_STAGES, clock, lambda: None)
    best = 10**9
    for _ in range(5):
        recorder.start(1)
        begin = clock.now()
        for _ in range(1000):
            recorder.begin("generate.decode")
            recorder.end("generate.decode")
            recorder.token([1])
        best = min(best, clock.now() - begin)
    assert best / 1000 < 20_000
    assert HINT_EVERY_NS >= 100_000_000
