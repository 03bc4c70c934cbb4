"""Faults as people order them: in a plan, and on a command line."""

import pytest

from llava_tui.faults import KINDS, Drift, Hang, Spikes
from llava_tui.plan import PlanError, from_dict, from_json, from_toml


def plan(*faults, **values):
    return from_dict({"pipeline": "simulated", "faults": list(faults), **values})


def test_text_and_tables_say_the_same():
    text = plan("drift=2.5%", "spikes=5%,size=40%", "hang=7,deaf=yes", "throttle=10%,first=4,runs=3,reason=hw-thermal")
    tables = plan(
        {"kind": "drift", "percent": 2.5},
        {"kind": "spikes", "percent": 5, "size": 40.0},
        {"kind": "hang", "run": 7, "deaf": True},
        {"kind": "throttle", "percent": 10, "first": 4, "runs": 3, "reason": "hw-thermal"},
    )
    assert text.faults == tables.faults
    assert text.faults[:3] == (Drift(percent=2.5), Spikes(percent=5.0, size=40.0), Hang(run=7, deaf=True))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_defaults_and_survives_its_travels(kind):
    made = plan(kind)
    assert from_toml(made.to_toml()) == made
    assert from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("drfit=2%", "did you mean drift"),
        ("lightning", "throttle, "),
        ("drift=much", "'much' is no number"),
        ("hang=soon", "'soon' is no whole number"),
        ("drift=2%,colour=red", "has no 'colour'; it has"),
        ("foreign,listed=perhaps", "is not yes or no"),
        ("throttle=120%", "percent 120 must be below 100"),
        ("hang,run=0", "run 0 is outside"),
        ("throttle,reason=anger", "anger"),
        ({"kind": "drift", "colour": 1}, "colour"),
        ({"kind": "lightning"}, "lightning"),
    ],
)
def test_what_cannot_be_injected_is_refused_in_words(fault, said):
    with pytest.raises(PlanError, match="aults") as refused:
        plan(fault)
    assert said in str(refused.value) or "Invalid" in str(refused.value)


def test_only_a_simulation_goes_wrong_on_purpose():
    with pytest.raises(PlanError, match="--pipeline simulated"):
        from_dict({"faults": ["drift"]})
