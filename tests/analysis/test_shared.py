"""EventGPT beside LLaVA, and beside itself in its other grouping: what may be compared, and what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from made_sessions import make

from llava_tui.analysis.comparison import Comparison, Side, compare
from llava_tui.plan import Case
from llava_tui.session.timeline import Timeline

CASE = Case(4, 1, 16)
PIPELINE = {"frames": "events", "frames.decode_frames": "events.read", "encode.preprocess": "encode.pixels"}
STAGES5 = PIPELINE | {
    "generate": "decode",
    "generate.prefill": "encode.prefill",
    "generate.decode": "decode.decode",
    "generate.detokenize": "decode.detokenize",
}


def eventgpt(folder: Path, names: dict[str, str], case: Case = CASE, drop: str = "") -> Path:
    """The made session with EventGPT's name and stages. (Which spans they have does not matter here.)"""
    make(folder, [case], header={"pipeline": "eventgpt", "model": "eventgpt-7b"})

    def renamed(held: Any) -> Any:
        if isinstance(held, dict):
            return {key: names.get(value, value) if key == "path" else value for key, value in held.items()}
        return names.get(held, held)

    lines = []
    for line in (folder / "events.jsonl").read_bytes().splitlines():
        event = msgspec.json.decode(line)
        if "stages" in event:
            event["stages"] = [renamed(each) for each in event["stages"]]
        if "model_type" in event:
            event["name"] = "eventgpt-7b"
        if event.get("prompt_tokens") and drop != "tokens":
            event["prompt_tokens"] -= 100
        lines.append(msgspec.json.encode(event) + b"\n")
    (folder / "events.jsonl").write_bytes(b"".join(lines))
    return folder


def llava(folder: Path, case: Case = CASE) -> Path:
    make(folder, [case])
    return folder


def compared(a: Path, b: Path) -> Comparison:
    (one,) = compare([Side(path.name, (Timeline.open(path).now(),)) for path in (a, b)])
    return one


def decided(one: Comparison) -> set[str]:
    return {row.key for row in one.rows if row.verdict != "not comparable" and row.n}


def test_llava_and_eventgpt_compare_by_the_stages_that_both_have_at_equal_tokens(tmp_path: Path) -> None:
    one = compared(llava(tmp_path / "llava"), eventgpt(tmp_path / "eventgpt", PIPELINE))
    assert one.verdict == "not comparable"
    assert any("pipeline: llava against eventgpt" in reason for reason in one.reasons)
    assert any("stages that both have" in note for note in one.notes)
    # As many pictures and new tokens, but not as long a prompt.
    on_pictures = {"encode.h2d", "encode.vision_tower", "encode.projector"}
    assert decided(one) == on_pictures | {"generate.decode", "generate.detokenize"}
    assert not one.slower
    longer = compared(llava(tmp_path / "llava2"), eventgpt(tmp_path / "same-prompt", PIPELINE, drop="tokens"))
    assert decided(longer) == decided(one) | {"generate.prefill"}


def test_stages_are_found_whatever_step_they_are_in(tmp_path: Path) -> None:
    one = compared(llava(tmp_path / "llava"), eventgpt(tmp_path / "eventgpt", STAGES5))
    row = one.row("generate.decode")
    assert row is not None
    assert row.b is not None
    assert "generate.decode" in decided(one)
    whole = one.row("encode")  # the step of that name holds other stages
    assert whole is not None
    assert whole.b is None


def test_other_new_tokens_are_another_question(tmp_path: Path) -> None:
    sides = llava(tmp_path / "llava"), eventgpt(tmp_path / "eventgpt", PIPELINE, Case(4, 1, 32))
    one = compared(*sides)
    assert any(reason.startswith("new tokens") for reason in one.reasons)
    assert decided(one) == set()


def test_two_groupings_of_one_model_compare_as_a_whole(tmp_path: Path) -> None:
    one = compared(eventgpt(tmp_path / "a", PIPELINE), eventgpt(tmp_path / "b", STAGES5))
    assert one.reasons == ()
    keys = decided(one)
    assert {"wall", "encode.vision_tower", "generate.prefill", "generate.decode", "ttft", "tpot"} <= keys
    # Steps that hold other stages are no rows of both: encode here has prefill in it there.
    assert not {"encode", "generate"} & keys


def test_two_sessions_of_llava_with_other_stages_stay_not_comparable(tmp_path: Path) -> None:
    a, b = llava(tmp_path / "a"), eventgpt(tmp_path / "b", PIPELINE)
    header = msgspec.json.decode((b / "session.json").read_bytes())
    (b / "session.json").write_bytes(msgspec.json.encode(header | {"pipeline": "llava"}))
    one = compared(a, b)
    assert one.verdict == "not comparable"
    assert decided(one) == set()
