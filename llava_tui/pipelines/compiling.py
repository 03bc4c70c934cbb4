"""Compiled decode steps: torch.compile of the model's forward pass, as transformers' generate() does it.

Prefill is left as it is: a prompt of another length would be compiled anew. A step always sees one token and, with a
static cache, tensors of one size a case, so each case is compiled once, at its first run.
"""

from __future__ import annotations

import sys
from typing import Any

from llava_tui.plan import Plan


def config(mode: str, device: Any) -> Any:
    """How a step is compiled, as generate() takes it (``compile_config``). ``mode``: one of
    :data:`llava_tui.plan.COMPILES` but "off"."""
    from transformers import CompileConfig

    # Of its own size for every case: else the first would run what was compiled for it, the others what fits any size.
    made = CompileConfig(dynamic=False)
    if mode != "on":
        made.mode = mode
    elif device.type == "cpu":
        made.mode = "default"  # what the library takes by itself is CUDA graphs
    # Else generate() compiles on accelerators alone.
    made._compile_all_devices = True
    return made


def allow(plan: Plan) -> None:
    """Lets torch compile as often as the plan's cases need it, and say so where that is not enough: by itself it goes
    on uncompiled from the ninth time on."""
    compiled = sum(plan.compile_of(case) != "off" for case in plan.cases())
    if compiled:
        import torch._dynamo.config as dynamo

        dynamo.recompile_limit = max(dynamo.recompile_limit, 4 * compiled)
        dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 8 * compiled)
        dynamo.fail_on_recompile_limit_hit = True


def graphs() -> int:
    """How many graphs were compiled in this process so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo is not None else 0


def missing(device: Any) -> str:
    """What there is to install before anything can be compiled for that device; "" where nothing is known to miss."""
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except (InvalidCxxCompiler, OSError):
            return "needs a C++ compiler, and none works here: install g++, or name one in CXX"
        return ""
    from torch.utils._triton import has_triton_package

    wanted = device.type in ("cuda", "xpu") and not has_triton_package()
    return "needs Triton, which is not installed: pip install triton" if wanted else ""


def failed(error: BaseException) -> bool:
    """Whether it is the compiler that raised ``error``, not the model."""
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    return isinstance(error, (TorchDynamoException, FailOnRecompileLimitHit))
