"""Step 3's loop: greedy decoding as the library does it, with the prefill and every token told to a probe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria

from llava_tui.pipelines.base import Probe, stage
from llava_tui.pipelines.caches import held


class Cut(StoppingCriteria):  # type: ignore[misc]
    """Lets a plain ``generate()`` be cut between tokens, and never ends it by itself."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._probe.check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class TimedLoop:
    """A ``custom_generate`` for ``model.generate()``: transformers prepares everything, the loop is ours.

    The same operations in the same order as the library's own greedy loop, so the tokens are the same to the bit. One
    instance a run.
    """

    def __init__(
        self, probe: Probe, after_prefill: Callable[[], None], forward: Callable[..., Any] | None = None
    ) -> None:
        """``forward`` runs the steps after the prefill: the model compiled, for one; else the model itself."""
        self._prefilling = False
        self.probe = probe
        self.after_prefill = after_prefill
        self.forward = forward
        self.new_ids: list[list[int]] = []
        """New tokens, one list a sequence, padding included; filled when the loop ends."""
        self.cached: int | None = None
        """Bytes that the cache of keys and values held when the loop ended."""

    def begin_prefill(self) -> None:
        """The prefill begins: by itself where the loop does, or earlier, for a model that encodes its pictures in
        ``generate()``."""
        self._prefilling = True
        self.probe.begin("generate.prefill")

    def end_prefill(self) -> None:
        """It ends, if it has begun: to be called also where ``generate()`` raises."""
        if self._prefilling:
            self._prefilling = False
            self.probe.end("generate.prefill")

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        synced_gpus: bool = False,
        streamer: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """``input_ids`` is (batch, prompt); returns (batch, prompt + new)."""
        prompt, forward = input_ids.shape[1], self.forward or model
        ends_early = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
        pad = generation_config._pad_token_tensor
        pad = None if pad is None else pad.to(input_ids.device)
        unfinished = torch.ones(input_ids.shape[0], dtype=torch.long, device=input_ids.device)

        def step(first: bool) -> bool:
            """One forward pass and one token; whether any sequence goes on."""
            nonlocal input_ids, kwargs, unfinished
            self.probe.check()
            inputs = model.prepare_inputs_for_generation(
                input_ids, next_sequence_length=None if first else 1, is_first_iteration=first, **kwargs
            )
            out = (model if first else forward)(**inputs, return_dict=True)
            kwargs = model._update_model_kwargs_for_generation(
                out, kwargs, is_encoder_decoder=model.config.is_encoder_decoder
            )
            logits = out.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
            del out, inputs  # the prefill's logits may be large: not to be held through the next step
            ids = logits_processor(input_ids, logits).argmax(-1)
            if ends_early and pad is not None:
                ids = ids * unfinished + pad * (1 - unfinished)
            input_ids = torch.cat([input_ids, ids[:, None]], -1)
            self.probe.token(ids)
            unfinished = unfinished & ~stopping_criteria(input_ids, None)
            # Read after every token, as the library does it: it is part of what decoding costs. Only on mps the
            # library reads it a token later; there our loop waits for the device where a plain generate() does not.
            return bool(unfinished.max() != 0)

        if not self._prefilling:
            self.begin_prefill()
        try:
            more = step(first=True)
            if not more:
                self.new_ids = input_ids[:, prompt:].tolist()
        finally:
            self.end_prefill()
        self.after_prefill()
        if more:
            with stage(self.probe, "generate.decode"):
                while step(first=False):
                    pass
                # Within the stage: on an accelerator this waits for the tokens, which is decoding, not detokenizing.
                self.new_ids = input_ids[:, prompt:].tolist()
        self.cached = held(kwargs.get("past_key_values"))
        return input_ids
