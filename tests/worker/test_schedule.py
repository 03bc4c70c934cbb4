"""The schedule says what will run, and that is what runs, whatever is asked in between."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llava_tui.plan import from_dict
from llava_tui.worker.schedule import Schedule, inputs_of, item_name, run_seed

CASES = ("f1-b1-n4", "f2-b1-n4", "f4-b1-n4")


def make(rounds=3, warmup=1, **values):
    return Schedule(from_dict({"frames": [1, 2, 4], "new_tokens": [4], "rounds": rounds, "warmup": warmup, **values}))


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
    plan = from_dict({"inputs": ["a", "b", "c"], "batch": [2], "rounds": 3})
    rounds = [planned for planned in run_all(Schedule(plan)) if planned.kind == "measured"]
    assert [inputs_of(plan, planned) for planned in rounds] == [("a", "b"), ("c", "a"), ("b", "c")]
    assert item_name(("x/clip.mp4", "x/clip.mp4")) == "clip.mp4"
    assert item_name(("x/clip.mp4", "y.mp4")) == "clip.mp4 +1"


def test_seeds_differ_from_run_to_run_and_come_back_with_the_plan():
    plan = from_dict({"seed": 5})
    seeds = [run_seed(plan, run) for run in range(50)]
    assert len(set(seeds)) == 50
    assert seeds == [run_seed(from_dict({"seed": 5}), run) for run in range(50)]
