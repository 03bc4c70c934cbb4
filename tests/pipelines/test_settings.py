"""Attention, dtype and threads as sweep axes: set case by case on one loaded model, and undone again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from recording_probe import RecordingProbe

from llava_tui.analysis.advice import Advice, Change
from llava_tui.analysis.trial import prove
from llava_tui.pipelines.checkpoints import synthesise_video
from llava_tui.pipelines.llava import LlavaPipeline
from llava_tui.plan import Case, Plan, from_dict
from llava_tui.session.timeline import Timeline

pytestmark = pytest.mark.models
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(synthesise_video(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1, size=(64, 48)))


def test_cases_run_on_what_they_ask_for_and_leave_no_trace(tiny: Path, clip: str) -> None:
    import torch

    plan = from_dict(
        {
            "model": str(tiny), "device": "cpu", "frames": [2], "new_tokens": [6], "inputs": [clip],
            "attention": "eager,sdpa", "dtype": "float32,bfloat16",
        }
    )  # fmt: skip
    pipeline = LlavaPipeline(plan)
    facts = pipeline.load(RecordingProbe())
    assert (facts.dtype, facts.attention) == ("float32", "eager")
    said: dict[str, list[list[int]]] = {}
    for case in (*plan.cases(), *reversed(plan.cases())):
        assert pipeline.check_case(case) == ""
        pipeline.prepare(case)
        model = pipeline.model
        assert str(model.dtype) == f"torch.{case.dtype}"
        attentions = {part.config._attn_implementation for part in model.modules() if hasattr(part, "config")}
        assert attentions == {case.attention}
        result = pipeline.run(case, (clip,), 0, RecordingProbe())
        tokens = result.token_ids
        assert result.facts["pictures"] == 2  # what the roofline takes the vision tower's work from
        assert tokens == pipeline.reference(case, (clip,), RecordingProbe())
        # A weight that was once converted would not say the same when its turn comes again.
        assert said.setdefault(case.id, tokens) == tokens

    before = torch.get_num_threads()
    try:
        pipeline.prepare(Case(2, 1, 6, threads=before + 1))
        assert torch.get_num_threads() == before + 1
        pipeline.prepare(Case(2, 1, 6))
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)


def test_an_attention_that_is_not_there_leaves_its_case_out(tiny: Path, clip: str) -> None:
    plan = Plan(model=str(tiny), device="cpu", inputs=(clip,), attention="eager,flash_attention_2").validated()
    pipeline = LlavaPipeline(plan)
    pipeline.load(RecordingProbe())
    eager, flash = plan.cases()
    assert pipeline.check_case(flash).startswith("flash_attention_2: FlashAttention2")
    assert pipeline.check_case(eager) == ""
    pipeline.prepare(eager)
    assert pipeline.run(eager, (clip,), 0, RecordingProbe()).text


def test_advice_on_attention_is_put_to_the_test_in_one_session(
    tiny: Path, clip: str, cli: Cli, sessions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker itself, on the plan that ``advise --verify`` makes of such advice."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # matrices are tiny, and other tests run beside
    ran = cli(
        *("run", "--model", str(tiny), "--input", clip, "--device", "cpu", "--frames", "2", "--new-tokens", "4"),
        *("--attention", "eager,sdpa", "--rounds", "6", "--warmup", "1", "--no-self-test", "--headless", "--json"),
    )
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert [case["case"] for case in document["cases"]] == ["f2-b1-n4-eager", "f2-b1-n4-sdpa"]
    advice = Advice(
        id="attention", rule=5, case="f2-b1-n4", title="", evidence=(), remedy="", gain=0.01, bound=0.5, metric="wall",
        change=Change("attention", "eager", "sdpa"), command="",
    )  # fmt: skip
    proof = prove(Timeline.open(sessions / document["id"]).now(), advice)
    assert proof.rounds == 6
    assert proof.low is not None
    assert proof.measured is not None
    assert proof.low <= proof.measured <= (proof.high or 1)
