"""What a plan's author reads of a value that a field does not take."""

from __future__ import annotations

import pytest

from llava_tui.plan import PlanError, from_toml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('frames = [1, "a"]', "frames: a text as its 2nd value, where a whole number is needed; "
         "write it like frames = [1, 4]"),
        ("tags = [1]", 'tags: a whole number as its 1st value, where a text is needed; write it like tags = ["night"]'),
        ("rounds = 1.5", "rounds: a number, where a whole number or a text is needed; "
         'write it like rounds = 10, or "auto"'),
        ('self_test = "maybe"', "self_test: a text, where true or false is needed; write it like self_test = true"),
        ("prompt = 1979-05-27", 'prompt: a date, where a text is needed; write it like prompt = "…"'),
        ("[inputs]\na = 1", 'inputs: a table, where a list is needed; write it like inputs = ["clip.mp4"]'),
        ('faults = [{kind = "drift", percent = "x"}]', "faults: a text as percent of its 1st value, where a number is "
         'needed; write it like faults = ["drift=2%"]'),
        ("faults = [{percent = 2}]", "faults: object missing required field kind, in its 1st value; "
         'write it like faults = ["drift=2%"]'),
        ('weights = "some"', "weights: invalid enum value 'some'; write it like weights = \"pretrained\""),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_told_by_its_field_and_how_to_write_it(text: str, said: str) -> None:
    with pytest.raises(PlanError) as error:
        from_toml(text)
    assert str(error.value) == said


@pytest.mark.parametrize("field", ["model", "frames", "dtype", "delta", "max_memory", "offload", "threads", "seed"])
def test_no_field_is_told_of_in_msgspecs_own_words(field: str) -> None:
    with pytest.raises(PlanError) as error:
        from_toml(f"{field} = [[[true]]]")
    assert str(error.value).startswith(f"{field}: ")
    assert "$" not in str(error.value)
    assert "`" not in str(error.value)
