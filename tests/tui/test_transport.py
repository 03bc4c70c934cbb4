"""Where in a session's time a viewer is: held, sought and played, by a clock that the test owns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui.tui.transport import FASTEST, SLOWEST, Moment, Transport, moment

S = 1_000_000_000


class Monotonic:
    def __init__(self) -> None:
        self.ns = 7 * S

    def __call__(self) -> int:
        return self.ns

    def wait(self, seconds: float) -> None:
        self.ns += int(seconds * S)


@pytest.fixture
def monotonic() -> Monotonic:
    return Monotonic()


@pytest.fixture
def over(monotonic: Monotonic) -> Transport:
    """On a session from 10 s to 110 s that has ended."""
    return Transport(10 * S, 110 * S, monotonic=monotonic)


@pytest.fixture
def live(monotonic: Monotonic) -> Transport:
    """On a session from 10 s that is at 110 s."""
    return Transport(10 * S, 110 * S, live=True, monotonic=monotonic)


# --- a session that is over -----------------------------------------------------------------------------------------


def test_a_session_that_ended_is_shown_at_its_end_and_stands_still(over: Transport, monotonic: Monotonic) -> None:
    assert over.now() == 110 * S
    monotonic.wait(5)
    assert over.now() == 110 * S
    over.saw(60 * S)
    assert over.now() == 110 * S
    over.saw(111 * S)  # its last words
    assert over.now() == 111 * S
    assert not over.playback().moving


def test_played_from_its_end_it_begins_at_the_start_and_holds_at_the_end(over: Transport, monotonic: Monotonic) -> None:
    over.play_or_hold()
    assert over.now() == 10 * S
    monotonic.wait(4)
    assert over.now() == 14 * S
    over.play_or_hold()
    monotonic.wait(4)
    assert over.now() == 14 * S
    over.play_or_hold()
    monotonic.wait(200)
    assert over.now() == 110 * S
    assert not over.playback().playing


def test_its_speed_goes_from_a_quarter_to_64_times(over: Transport, monotonic: Monotonic) -> None:
    over.seek(10 * S)
    over.play()
    for _ in range(20):
        over.set_speed(over.speed * 2)
    assert over.speed == FASTEST
    monotonic.wait(1)
    assert over.now() == 74 * S
    for _ in range(20):
        over.set_speed(over.speed / 2)
    assert over.speed == SLOWEST
    monotonic.wait(4)
    assert over.now() == 75 * S


def test_what_is_sought_while_it_plays_plays_on_from_there(over: Transport, monotonic: Monotonic) -> None:
    over.play()
    monotonic.wait(3)
    over.seek(50 * S)
    monotonic.wait(3)
    assert over.now() == 53 * S
    over.to_end()
    monotonic.wait(1)
    assert over.playback().t == 110 * S
    assert not over.playback().playing


def test_a_loop_over_a_run_begins_again_where_the_run_began(over: Transport, monotonic: Monotonic) -> None:
    over.run = (20 * S, 24 * S)
    over.loop_over("run")
    assert over.now() == 20 * S  # it was at the end
    monotonic.wait(5)
    assert over.now() == 21 * S
    monotonic.wait(40)
    assert over.now() == 21 * S
    over.loop_over("session")
    monotonic.wait(98)
    assert over.now() == 19 * S
    over.loop_over("")
    monotonic.wait(98)
    assert over.now() == 110 * S
    assert not over.playback().playing


def test_a_run_that_took_no_time_is_no_endless_loop(over: Transport, monotonic: Monotonic) -> None:
    over.run = (20 * S, 20 * S)
    over.loop_over("run")
    monotonic.wait(1)
    assert over.now() == 20 * S


# --- a live one -----------------------------------------------------------------------------------------------------


def test_a_live_session_is_followed(live: Transport, monotonic: Monotonic) -> None:
    monotonic.wait(2)
    assert live.now() == 112 * S
    live.saw(115 * S)
    assert live.now() == 115 * S
    assert live.playback().following
    assert live.playback().behind is None


def test_scrolled_back_the_picture_stands_and_the_distance_grows(live: Transport, monotonic: Monotonic) -> None:
    live.seek(100 * S)
    monotonic.wait(32)
    play = live.playback()
    assert (play.t, play.behind, play.moving) == (100 * S, 42 * S, False)


def test_played_behind_it_keeps_its_distance_and_faster_it_catches_up(live: Transport, monotonic: Monotonic) -> None:
    live.seek(100 * S)
    live.play()
    monotonic.wait(20)
    assert live.playback().behind == 10 * S
    live.set_speed(2)
    monotonic.wait(9)
    assert live.playback().behind == 1 * S
    monotonic.wait(2)
    assert live.playback().following
    assert live.now() == 141 * S
    assert live.speed == 1


def test_held_at_now_it_stands_and_the_end_key_returns(live: Transport, monotonic: Monotonic) -> None:
    live.play_or_hold()
    monotonic.wait(3)
    assert (live.now(), live.playback().behind) == (110 * S, 3 * S)
    live.to_end()
    assert live.now() == 113 * S
    monotonic.wait(1)
    assert live.now() == 114 * S


def test_a_jump_beyond_now_follows_again(live: Transport) -> None:
    live.seek(100 * S)
    live.seek(500 * S)
    assert live.playback().following


def test_the_speed_of_what_is_happening_now_cannot_be_changed(live: Transport, monotonic: Monotonic) -> None:
    live.set_speed(8)
    monotonic.wait(1)
    assert (live.now(), live.speed) == (111 * S, 1)


def test_a_live_session_that_ends_leaves_who_had_scrolled_back_where_they_are(
    live: Transport, monotonic: Monotonic
) -> None:
    live.seek(50 * S)
    live.saw(120 * S)
    live.went(live=False)
    assert live.now() == 50 * S
    live.play()
    monotonic.wait(3)
    assert live.now() == 53 * S
    assert live.playback().behind is None


def test_a_live_session_that_ends_leaves_who_followed_it_at_its_end(live: Transport, monotonic: Monotonic) -> None:
    monotonic.wait(4)
    assert live.now() == 114 * S
    live.saw(112 * S)
    live.went(live=False)
    assert live.now() == 112 * S
    monotonic.wait(4)
    assert live.now() == 112 * S


def test_a_session_whose_worker_comes_is_followed_from_its_end(over: Transport, monotonic: Monotonic) -> None:
    over.went(live=True)
    monotonic.wait(1)
    assert over.now() == 111 * S


@pytest.mark.parametrize(("rate", "moved"), [(4.0, 12), (0.5, 1.5), (0.0, 3)])
def test_behind_a_simulated_session_time_goes_as_fast_as_the_session(
    monotonic: Monotonic, rate: float, moved: float
) -> None:
    live = Transport(0, 100 * S, live=True, rate=rate, monotonic=monotonic)
    live.seek(50 * S)
    live.play()
    monotonic.wait(3)
    assert live.now() == 50 * S + int(moved * S)  # where nothing is known of its pace, as a clock does
    live.went(live=False)
    at = live.now()
    monotonic.wait(3)
    assert live.now() == at + 3 * S  # a replay goes by the session's own seconds


# --- whatever is asked ----------------------------------------------------------------------------------------------

DEEDS = st.one_of(
    st.tuples(st.just("wait"), st.floats(0, 40)),
    st.tuples(st.just("seek"), st.integers(-10, 200)),
    st.tuples(st.just("speed"), st.sampled_from([0.5, 2])),
    st.tuples(st.just("saw"), st.integers(0, 20)),
    st.tuples(st.sampled_from(["play_or_hold", "to_end", "hold", "play"]), st.none()),
    st.tuples(st.just("loop"), st.sampled_from(["", "run", "session"])),
    st.tuples(st.just("went"), st.booleans()),
)


@settings(max_examples=60, deadline=None)
@given(live=st.booleans(), deeds=st.lists(DEEDS, max_size=25))
def test_time_stays_within_the_session_and_stands_unless_it_moves(live: bool, deeds: list[tuple[str, object]]) -> None:
    monotonic = Monotonic()
    clock = Transport(10 * S, 60 * S, live=live, monotonic=monotonic)
    clock.run = (20 * S, 30 * S)
    newest = 60 * S
    for deed, value in deeds:
        match deed, value:
            case "wait", float(seconds):
                monotonic.wait(seconds)
            case "seek", int(seconds):
                clock.seek(seconds * S)
            case "speed", factor:
                clock.set_speed(clock.speed * float(str(factor)))
            case "saw", int(seconds):
                newest += seconds * S
                clock.saw(newest)
            case "loop", loop:
                clock.loop_over(loop)  # type: ignore[arg-type]
            case "went", bool(there):
                clock.went(live=there)
            case _:
                getattr(clock, deed)()
        play = clock.playback()
        assert 10 * S <= play.t <= play.edge
        assert play.following <= play.live
        assert not (play.following and play.playing)
        assert SLOWEST <= play.speed <= FASTEST
        monotonic.wait(0.5)
        later = clock.now()
        assert later == play.t or play.moving
        if play.playing and not play.loop and later < play.edge:
            assert abs(later - play.t - 0.5 * play.speed * S) <= 2


# --- time codes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "t"),
    [
        ("0", 10 * S), ("12.5", 22.5 * S), ("1:30", 100 * S), ("90", 100 * S), ("0:01:02.25", 72.25 * S),
        ("-5", 105 * S), ("−0.5", 109.5 * S), (" 3 ", 13 * S), ("100", 110 * S), ("-100", 10 * S),
    ],
)  # fmt: skip
def test_a_time_code_is_a_time_of_the_session(text: str, t: float) -> None:
    assert moment(text).within(10 * S, 110 * S) == t


@pytest.mark.parametrize(
    "text", ["", "x", "1:", ":30", "1:2:3:4", "12,5", "1e3", "--5", "1:60", "1:61:00", "٣", "9" * 5000]
)
def test_what_is_no_time_code_says_what_would_be_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no time: (12\.5, 1:30|minutes and seconds)"):
        moment(text)


@pytest.mark.parametrize("text", ["100.1", "2:00", "-100.5"])
def test_a_time_that_the_session_has_not_is_refused_with_its_length(text: str) -> None:
    with pytest.raises(ValueError, match="there is no such time: the session is 01:40 long"):
        moment(text).within(10 * S, 110 * S)


@settings(max_examples=60)
@given(ns=st.integers(0, 400_000 * S))
def test_a_time_that_is_written_out_is_read_back(ns: int) -> None:
    seconds, rest = divmod(ns, S)
    hours, minutes = divmod(seconds // 60, 60)
    for text in (f"{seconds}.{rest:09}", f"{hours}:{minutes:02}:{seconds % 60:02}.{rest:09}"):
        assert moment(text) == Moment(ns)
