"""What a case needs of memory beside the weights, before it is run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_tui.forecast import forecast
from llava_tui.needs import needs
from llava_tui.plan import Plan, from_dict
from llava_tui.presets import find

MIB = 2**20


def config(name: str = "llava-1.5-7b") -> dict[str, Any]:
    preset = find(name)
    assert preset is not None
    return preset.config


def only(plan: Plan, of: dict[str, Any], dtype: str = "float16", attention: str = "sdpa") -> Any:
    (case,) = plan.cases()
    return needs(plan, case, of, dtype, attention)


def test_the_cache_of_llava_1_5_is_288_mib_a_frame() -> None:
    told = only(from_dict({"frames": [3], "new_tokens": [1], "prompt": "x" * 4}), config())
    assert told.certain == 3 * 288 * MIB
    assert told.cache == told.certain + MIB / 2
    wide = only(from_dict({"frames": [3], "new_tokens": [1], "prompt": "x" * 4}), config(), dtype="float32")
    assert wide.certain == 2 * told.certain


def test_what_a_pass_holds_was_measured() -> None:
    """The demo's geometry on a CPU, eager: the resident set of prefill grew by 449 MiB at 8 frames and by 1,975 MiB at
    4 × 8 (``docs/memory.md``)."""
    demo: dict[str, Any] = {
        "model_type": "llava",
        "vision_feature_layer": -2,
        "text_config": {
            "model_type": "llama",
            "num_hidden_layers": 8,
            "hidden_size": 512,
            "intermediate_size": 1024,
            "num_attention_heads": 8,
            "vocab_size": 312,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "num_hidden_layers": 8,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_attention_heads": 4,
            "image_size": 224,
            "patch_size": 14,
        },
    }
    for frames, batch, measured in ((8, 1, 449), (8, 4, 1975), (4, 4, 538)):
        plan = from_dict({"frames": [frames], "batch": [batch], "new_tokens": [16]})
        told = only(plan, demo, "float32", "eager")
        assert told.total == pytest.approx(measured * MIB, rel=0.15)


def test_an_eventgpts_events_are_counted_as_it_averages_them() -> None:
    of = {**config(), "model_type": "EventChat_llama"}
    told = only(from_dict({"pipeline": "eventgpt", "new_tokens": [1], "prompt": "x" * 4}), of)
    assert told.certain == 582 * MIB / 2


@pytest.mark.parametrize("of", [{}, {"model_type": "qwen2_vl", "text_config": {"num_hidden_layers": 2}}])
def test_what_the_config_does_not_tell_is_not_claimed(of: dict[str, Any]) -> None:
    assert only(from_dict({"frames": [1]}), of) is None


@settings(max_examples=40)
@given(st.integers(1, 32), st.integers(1, 64), st.integers(1, 512), st.booleans())
def test_more_of_anything_never_takes_less(frames: int, batch: int, new: int, eager: bool) -> None:
    attention = "eager" if eager else "sdpa"

    def told(frames: int, batch: int, new: int) -> Any:
        plan = from_dict({"frames": [frames], "batch": [batch], "new_tokens": [new]})
        return only(plan, config(), attention=attention)

    here = told(frames, batch, new)
    assert 0 < here.certain <= here.cache < here.total
    for more in (told(frames + 1, batch, new), told(frames, batch + 1, new), told(frames, batch, new + 1)):
        assert more.total >= here.total
        assert more.certain >= here.certain


GIB = 2**30


def test_before_a_session_each_case_is_judged_by_what_is_free() -> None:
    plan = from_dict({"frames": [1, 4], "batch": [1, 32], "new_tokens": [64]})
    found = {each.case: each for each in forecast(plan, config(), "float16", 24 * GIB, "this machine")}
    assert found["f1-b1-n64"].problem == ""
    assert 13.4 < found["f1-b1-n64"].total / GIB < 13.7
    assert found["f1-b32-n64"].problem.startswith("may not fit: 13.2 GiB of weights and ")
    assert not found["f1-b32-n64"].certain
    assert found["f4-b32-n64"].certain
    assert "this machine has 24.0 GiB free; use --batch " in found["f4-b32-n64"].problem
    for each in forecast(plan, config(), "float16", 10 * GIB, "the GPU"):
        assert each.certain
        assert "the weights take 13.2 GiB, the GPU has 10.0 GiB free" in each.problem
    assert not any(each.problem for each in forecast(plan, config(), "float16", None, ""))
    assert forecast(plan, {}, "float16", 1, "") == ()


def test_what_is_asked_for_instead_does_fit() -> None:
    free = 24 * GIB
    plan = from_dict({"frames": [4], "batch": [32], "new_tokens": [64]})
    (found,) = forecast(plan, config(), "float16", free, "here")
    batch = int(found.problem.rpartition("--batch ")[2].split()[0])
    (smaller,) = forecast(
        from_dict({"frames": [4], "batch": [batch], "new_tokens": [64]}), config(), "float16", free, ""
    )
    assert smaller.problem == ""
