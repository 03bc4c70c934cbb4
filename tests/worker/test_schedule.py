"""The schedule says what will run, and that is what runs, whatever is asked in between."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui.plan import from_dict
from llava_tui.worker.batches import Batches
from llava_tui.worker.schedule import Schedule, run_seed

CASES = ("f1-b1-n4", "f2-b1-n4", "f4-b1-n4")


def make(rounds=3, warmup=1, **values):
    plan = {"frames": [1, 2, 4], "new_tokens": [4], "rounds": rounds, "warmup": warmup, "self_test": False}
    return Schedule(from_dict(plan | values))


def run_all(schedule, fails=()):
    taken = []
    while (planned := schedule.take()) is not None:
        taken.append(planned)
        if planned.case.id in fails:
            schedule.drop(planned.case.id, "failed")
        elif planned.kind == "cold":
            schedule.cold_started()
    return taken


def test_cold_then_warm_up_then_rounds():
    taken = run_all(make())
    kinds = [(planned.kind, planned.case.id) for planned in taken[:7]]
    assert kinds == [("cold", CASES[0]), *((kind, case) for case in CASES for kind in ("warm-up", "cross-check"))]
    rounds = [taken[7 + 3 * n : 10 + 3 * n] for n in range(3)]
    for number, round_ in enumerate(rounds):
        assert sorted(planned.case.id for planned in round_) == sorted(CASES)
        assert {planned.round for planned in round_} == {number}
    assert len(taken) == 16


def test_the_cold_start_passes_to_the_next_case():
    taken = run_all(make(), fails=CASES[:1])
    assert [(p.kind, p.case.id) for p in taken[:3]] == [("cold", CASES[0]), ("cold", CASES[1]), ("warm-up", CASES[1])]


wishes = st.lists(
    st.one_of(
        st.tuples(st.just("skip"), st.sampled_from(CASES)),
        st.tuples(st.just("repeat"), st.sampled_from(CASES)),
        st.tuples(st.just("extend"), st.integers(1, 3)),
        st.tuples(st.just("fail"), st.sampled_from(CASES)),
        st.tuples(st.just("run"), st.integers(1, 6)),
    ),
    max_size=12,
)


@given(wishes, st.integers(0, 2))
def test_as_many_runs_as_were_promised(wishes, warmup):
    schedule = make(warmup=warmup)
    measured = Counter()
    done = 0

    def step():
        nonlocal done
        planned = schedule.take()
        if planned is None:
            return False
        done += 1
        assert planned.case.id not in schedule.dropped
        if planned.kind == "cold":
            schedule.cold_started()
        if planned.kind == "measured":
            measured[planned.case.id, planned.round] += 1
        return True

    for wish, value in wishes:
        if wish == "run":
            for _ in range(value):
                step()
        elif wish == "extend":
            schedule.extend(value)
        elif wish == "fail":
            schedule.drop(value, "failed")
        elif value not in schedule.dropped and value not in schedule.skipped:
            getattr(schedule, wish)(value)
        assert schedule.done == done
    promised = schedule.event(0)
    while step():
        pass
    assert done == promised.runs
    assert set(measured.values()) <= {1}, "no case runs twice in a round: that is what pairs cases"
    assert all(round_ < promised.rounds for _, round_ in measured)


def test_every_input_is_used_in_turn():
    plan = from_dict({"inputs": ["x/a", "y/b", "z/c"], "batch": [2], "rounds": 3})
    batches = Batches(plan)
    rounds = [planned for planned in run_all(Schedule(plan, batches)) if planned.kind == "measured"]
    taken = [batches.of(planned.case, planned.round) for planned in rounds]
    assert [batches.given(each) for each in taken] == [("x/a", "y/b"), ("z/c", "x/a"), ("y/b", "z/c")]
    assert batches.name((0, 0)) == "a"
    assert batches.name((1, 2)) == "b +1"
    batches.broken[1] = "y/b: no such file"
    assert batches.given(batches.of(rounds[1].case, 1)) == ("x/a", "z/c"), "what is broken is left out"


def test_seeds_differ_from_run_to_run_and_come_back_with_the_plan():
    plan = from_dict({"seed": 5})
    seeds = [run_seed(plan, run) for run in range(50)]
    assert len(set(seeds)) == 50
    assert seeds == [run_seed(from_dict({"seed": 5}), run) for run in range(50)]


# --- what depends on what was measured ----------------------------------------------------------------------------


def run_measuring(schedule, noise, seed=0, during=lambda planned: None, now=lambda: 0):
    """Runs it all; every run takes 100 ms with that much noise, half of it in each of two steps."""
    numbers = random.Random(seed)
    taken = []
    while (planned := schedule.take(now())) is not None:
        taken.append(planned)
        during(planned)
        if planned.kind == "cold":
            schedule.cold_started()
        wall = round(1e8 * (1 + numbers.uniform(-noise, noise)))
        schedule.ran(planned, wall, {"encode": wall // 2, "generate": wall // 2})
    return taken


def kinds(taken, kind, case=None):
    return [planned for planned in taken if planned.kind == kind and case in (None, planned.case.id)]


@given(st.floats(0, 0.2), st.integers(0, 99), st.integers(10, 25))
@settings(max_examples=40, deadline=None)
def test_automatic_rounds_end_by_the_rule_that_they_name(noise, seed, most):
    schedule = make(rounds="auto", warmup="auto", max_rounds=most)
    promised = schedule.event(0)
    assert promised.open
    taken = run_measuring(schedule, noise, seed)
    assert len(taken) <= promised.runs, "what was promised is the most there can be"
    measured = {case: len(kinds(taken, "measured", case)) for case in CASES}
    assert len(set(measured.values())) == 1, "whole rounds only"
    rounds = measured[CASES[0]]
    ended = schedule.ended(0)
    assert (ended.rounds, 10 <= rounds <= most) == (rounds, True)
    assert ended.rule == "interval" or rounds == most
    assert ended.width <= 0.01 or ended.rule == "cap"
    for case in CASES:
        assert 3 <= len(kinds(taken, "warm-up", case)) <= 20
    last = schedule.event(0)
    assert (last.open, last.runs, last.rounds) == (False, len(taken), rounds)


def test_quiet_cases_take_the_fewest_runs():
    taken = run_measuring(make(rounds="auto", warmup="auto"), 0)
    assert (len(kinds(taken, "warm-up")), len(kinds(taken, "measured"))) == (9, 30)


def test_rounds_asked_for_are_run_whatever_the_rule_says():
    schedule = make(rounds="auto")
    asked = []

    def during(planned):
        if planned.round == 4 and not asked:
            asked.append(schedule.extend(3))
        elif planned.round == 11 and len(asked) == 1:  # After the rule was met.
            asked.append(schedule.extend(2))

    taken = run_measuring(schedule, 0, during=during)
    rounds = {planned.round for planned in kinds(taken, "measured")}
    assert rounds == set(range(10 + 3 + 2)), "their numbers go on where the others ended"
    assert schedule.event(0).rounds == 15
    assert schedule.ended(0).rule == "interval"
    assert schedule.ended(0).text.startswith(
        "every step's 95 % interval is within ±1 % and every case has its verdict beside the first after 10 rounds"
    )


@pytest.mark.parametrize(("effect", "rule"), [(0.05, "interval"), (0.0, "interval"), (0.0085, "cap")])
def test_rounds_go_on_while_a_case_has_no_verdict(effect, rule):
    """Steps are known well enough from the tenth round on; an effect about as large as the least that is worth a claim
    is neither one nor none."""
    schedule = make(rounds="auto", frames=[1, 2], max_rounds=30)
    while (planned := schedule.take()) is not None:
        if planned.kind == "cold":
            schedule.cold_started()
        other, odd = planned.case.frames == 2, (planned.round or 0) % 2
        time = 1e9 * (1 + other * (effect + (0.0045 if odd else -0.0045)))
        schedule.ran(planned, round(time), {"generate": round(time)})
    ended = schedule.ended(0)
    assert (ended.rule, ended.rounds == 10) == (rule, rule == "interval")
    assert ("f2-b1-n4 has no verdict beside f1-b1-n4" in ended.text) is (rule == "cap")


def test_a_time_limit_ends_rounds_between_two_of_them():
    clock = iter(range(0, 10**12, 10**9))  # A second passes from run to run.
    schedule = make(rounds=100, time_limit_s=10, warmup=0)
    assert schedule.event(0).open
    taken = run_measuring(schedule, 0, now=lambda: next(clock))
    assert len(kinds(taken, "measured")) == 12, "the fourth round began within the limit and is whole"
    assert schedule.ended(0).rule == "time limit"
    assert not schedule.event(0).open


@pytest.mark.parametrize(
    ("begun", "cut", "rounds"), [(6, False, 2), (7, False, 2), (7, True, 2), (9, True, 2), (9, False, 3), (2, True, 0)]
)
def test_a_round_that_was_cut_is_not_counted(begun, cut, rounds):
    """So many measured runs of three cases were begun, the last of which was cut short; or whole, and none came on."""
    schedule = make(rounds=5)
    while begun:
        planned = schedule.take()
        begun -= planned.kind == "measured"
        if planned.kind == "cold":
            schedule.cold_started()
        if begun or not cut:
            schedule.ran(planned, 10**8, {})
    assert schedule.ended(0, "stopped by me").rounds == rounds


def test_a_round_is_complete_without_the_case_that_failed_in_it():
    schedule = make(rounds=3)
    while (planned := schedule.take()) is not None:
        if planned.kind == "cold":
            schedule.cold_started()
        if planned.round == 1 and planned.case.id == CASES[1]:
            schedule.drop(CASES[1], "failed")
        else:
            schedule.ran(planned, 10**8, {})
        if planned.round == 0 and planned.case.id == CASES[0]:
            schedule.repeat(CASES[0])
    assert schedule.ended(0).rounds == 3, "and a repeat is none"


def test_a_case_that_is_left_out_holds_nothing_up():
    schedule = make(rounds="auto")
    numbers = random.Random(1)
    while (planned := schedule.take()) is not None:
        if planned.kind == "cold":
            schedule.cold_started()
        if planned.round == 3 and CASES[1] not in schedule.skipped:
            schedule.skip(CASES[1])
        noisy = planned.case.id == CASES[1]
        schedule.ran(planned, 10**8, {"encode": round(10**8 * (1 + noisy * numbers.random()))})
    assert schedule.ended(0).rule == "interval"
    assert schedule.ended(0).rounds == 10


def test_the_self_test_comes_before_the_rounds_and_moves_on_with_a_case_that_fails():
    taken = run_all(make(self_test=True))
    tests = kinds(taken, "self-test")
    assert [planned.bare for planned in tests] == [True, False, False, True] * 2 + [True, False]
    assert {planned.case.id for planned in tests} == {CASES[0]}
    order = [planned.kind for planned in taken]
    assert order[order.index("self-test") + 9 :][:2] == ["self-test", "measured"]
    taken = run_all(make(self_test=True), fails=CASES[:1])
    assert {planned.case.id for planned in kinds(taken, "self-test")} == {CASES[1]}
    schedule = make(self_test=True)
    assert schedule.event(0).runs == len(run_all(schedule))


def test_a_self_test_is_not_begun_anew():
    schedule = make(self_test=True)
    taken = run_measuring(
        schedule, 0, during=lambda planned: schedule.skip(CASES[0]) if planned.kind == "self-test" else None
    )
    assert len(kinds(taken, "self-test")) == 1


def test_the_profiled_run_is_the_last():
    schedule = make(profile=True)
    assert schedule.event(0).runs == 17
    taken = run_all(schedule)
    assert [planned.kind for planned in taken[-2:]] == ["measured", "profile"]
    assert (schedule.over, len(taken)) == (True, 17)


@pytest.mark.parametrize("skipped", [(), CASES[:1]])
def test_a_run_that_was_taken_back_comes_next_while_its_case_takes_part(skipped):
    schedule = make(warmup=0)
    run = next(planned for planned in iter(lambda: (schedule.cold_started(), schedule.take())[1], None)
               if planned.kind == "measured" and planned.case.id == CASES[0])  # fmt: skip
    for case in skipped:
        schedule.skip(case)
    schedule.retry(run)
    assert (schedule.take() == run) is not bool(skipped)
