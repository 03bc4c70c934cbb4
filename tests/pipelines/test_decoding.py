"""How a case decodes: on a growing cache or one of fixed size, and with a compiled step or without. Whatever it is, the
tokens are those of the library's own generate(), and one encoding is all that there is."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recording_probe import RecordingProbe

from llava_tui import preflight
from llava_tui.pipelines import compiling
from llava_tui.pipelines.base import PipelineError, RunResult
from llava_tui.pipelines.checkpoints import synthesise_video
from llava_tui.pipelines.llava import LlavaPipeline
from llava_tui.plan import Case, PlanError, from_dict

pytestmark = pytest.mark.models

NO_COMPILER = "/nowhere/c++"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(synthesise_video(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=1, size=(64, 48)))


@pytest.fixture
def load(tiny: Path, clip: str) -> Any:
    def load(**values: Any) -> LlavaPipeline:
        plan = from_dict({"model": str(tiny), "device": "cpu", "inputs": [clip], "new_tokens": [6]} | values)
        pipeline = LlavaPipeline(plan)
        pipeline.facts = pipeline.load(RecordingProbe())  # type: ignore[attr-defined]
        return pipeline

    return load


def execute(pipeline: LlavaPipeline, case: Case) -> RunResult:
    """One run, held against the library's own generate()."""
    assert pipeline.check_case(case) == ""
    pipeline.prepare(case)
    result = pipeline.run(case, pipeline.plan.inputs, 0, RecordingProbe())
    assert result.token_ids == pipeline.reference(case, pipeline.plan.inputs, RecordingProbe())
    assert result.vision_calls == 1
    return result


def test_a_static_cache_says_the_same_and_is_the_cases_own(load: Any) -> None:
    """Left to the library, the cache of one frame would be as long as that of four, once those have run."""
    pipeline = load(frames=[4, 1], batch=[1, 2], cache="dynamic,static")
    said: dict[Any, list[list[int]]] = {}
    kept: dict[str, Any] = {}
    for case in (*pipeline.plan.cases(), *reversed(pipeline.plan.cases())):
        result = execute(pipeline, case)
        assert not result.disturbed
        assert said.setdefault((case.frames, case.batch), result.token_ids) == result.token_ids
        if case.cache == "static":
            length, cache = pipeline._caches._kept[case.id]
            assert result.prompt_tokens is not None
            assert length == result.prompt_tokens + 6 - 1
            layer = cache.layers[0]
            assert layer.keys.shape[2] == length
            assert kept.setdefault(case.id, layer.keys).data_ptr() == layer.keys.data_ptr()
    assert len(kept) == 4


@pytest.mark.timeout(240)
def test_a_compiled_step_is_compiled_once_a_case_and_says_the_same(load: Any, tiny: Path) -> None:
    """Real: torch's own compiler, and the machine's."""
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler on this machine")
    pipeline = load(frames=[1], compile="off,on")
    assert (pipeline.facts.extra["cache"], pipeline.facts.extra["compile"]) == ("dynamic", "off")
    plain, compiled = pipeline.plan.cases()
    usual = execute(pipeline, plain)
    assert not usual.disturbed
    first = execute(pipeline, compiled)
    assert first.disturbed
    assert first.facts["compiled_graphs"] > 0
    graphs = compiling.graphs()
    for case in (plain, compiled, plain, compiled):
        result = execute(pipeline, case)
        assert not result.disturbed
        assert result.token_ids == usual.token_ids
    assert compiling.graphs() == graphs, "neither a run nor generate() compiles anew"


def test_without_a_compiler_its_cases_are_left_out_before_anything_runs(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(config.cpp, "cxx", (None, NO_COMPILER))
    cpp_builder.cpp_compiler_search.cache_clear()
    try:
        pipeline = load(frames=[1], compile="off,on")
        plain, compiled = pipeline.plan.cases()
        assert pipeline.check_case(compiled).startswith("compile: needs a C++ compiler")
        execute(pipeline, plain)
    finally:
        cpp_builder.cpp_compiler_search.cache_clear()


def test_a_compiler_that_fails_is_named_and_the_model_runs_on(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import Unsupported

    pipeline = load(frames=[1], compile="off,on")
    plain, compiled = pipeline.plan.cases()
    pipeline.prepare(compiled)

    def refuse(**_: Any) -> None:
        raise Unsupported("an operator nobody knows\nand a page of explanation", case_name="test")

    monkeypatch.setattr(pipeline.model, "get_compiled_call", lambda config: refuse)
    with pytest.raises(PipelineError, match=r"^a step of decoding cannot be compiled: .*nobody knows$"):
        pipeline.run(compiled, pipeline.plan.inputs, 0, RecordingProbe())
    monkeypatch.undo()
    execute(pipeline, plain)


def test_a_plan_of_nothing_but_compiled_cases_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before there is a session. Where other cases can run, they do."""
    monkeypatch.setenv("CXX", NO_COMPILER)
    with pytest.raises(PlanError, match=f"compile: needs a C\\+\\+ compiler, and there is no {NO_COMPILER}"):
        preflight.check(from_dict({"device": "cpu", "compile": "on"}))
    preflight.check(from_dict({"device": "cpu", "compile": "off,on"}))
    preflight.check(from_dict({"device": "auto", "compile": "on"}))  # only the worker knows which device that is


def test_a_gpu_is_compiled_for_by_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils import _triton

    monkeypatch.setattr(_triton, "has_triton_package", lambda: False)
    assert compiling.missing(SimpleNamespace(type="cuda")).startswith("needs Triton")
    assert compiling.missing(SimpleNamespace(type="mps")) == ""
    monkeypatch.setattr(_triton, "has_triton_package", lambda: True)
    assert compiling.missing(SimpleNamespace(type="cuda")) == ""


@pytest.mark.parametrize(
    ("mode", "device", "wanted"),
    [
        ("on", "cuda", "reduce-overhead"),  # what generate() takes by itself
        ("on", "cpu", "default"),
        ("max-autotune", "cuda", "max-autotune"),
    ],
)
def test_a_mode_is_what_torch_is_told(mode: str, device: str, wanted: str) -> None:
    made = compiling.config(mode, SimpleNamespace(type=device))
    assert (made.mode, made.dynamic) == (wanted, False)
