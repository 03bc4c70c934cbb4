"""What building a model with random weights takes beside a plain fill of as many bytes: LLaVA-1.5-7B at 4 layers.

    python benchmarks/random_weights.py [--layers 4] [--repeats 9] [--dtype bfloat16] [--limit 2]

A plain fill writes one number into new tensors of the same shapes. Both are done in pairs, in changing order; the
ratio is the median of the pairs'. Needs room for the model once (2.8 GB at 4 layers in bfloat16). Exits 1 above the
limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from llava_tui import presets, units
from llava_tui.pipelines import fitting, random_weights


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="of the language model")
    parser.add_argument("--repeats", type=int, default=9, help="pairs")
    parser.add_argument("--dtype", default="bfloat16", choices=fitting.BYTES)
    parser.add_argument("--limit", type=float, default=2, help="times a plain fill")
    given = parser.parse_args()
    import torch
    import transformers

    preset = presets.find("llava-1.5-7b")
    assert preset is not None
    preset.config["text_config"]["num_hidden_layers"] = given.layers
    device = torch.device("cpu")

    def build() -> tuple[float, list[torch.Size]]:
        begin = time.perf_counter()
        model = random_weights.build(torch, transformers, preset.name, preset.config, [given.dtype], device, 0)
        return time.perf_counter() - begin, [p.shape for p in model.parameters()]

    def plain() -> float:
        begin = time.perf_counter()
        kept = [torch.empty(shape, dtype=getattr(torch, given.dtype)).fill_(0.02) for shape in shapes]
        took = time.perf_counter() - begin
        assert len(kept) == len(shapes)
        return took

    first, shapes = build()  # imports the model's modules
    count = sum(shape.numel() for shape in shapes)
    built, filled = [], []
    for turn in range(given.repeats):
        if turn % 2:
            filled.append(plain())
        built.append(build()[0])
        if not turn % 2:
            filled.append(plain())
    total = count * fitting.BYTES[given.dtype]
    for name, times in (("built", built), ("plain fill", filled)):
        took = statistics.median(times)
        spread = f"{min(times):.2f} … {max(times):.2f} s"
        print(f"{name:<11} {took:6.2f} s   {total / took / 1e9:5.2f} GB/s   {spread}")
    ratio = statistics.median(one / other for one, other in zip(built, filled, strict=True))
    print(
        f"{count:,} parameters, {units.size(total)} in {given.dtype}, {torch.get_num_threads()} threads; first build "
        f"{first:.2f} s; {ratio:.2f} × a plain fill (limit {given.limit:g})"
    )
    return 0 if ratio <= given.limit else 1


if __name__ == "__main__":
    sys.exit(main())
