"""What hardware can do at best: by its maker's data sheet, or as measured on the machine itself.

Data-sheet figures are dense (no sparsity) tensor throughput with float32 accumulation and the memory's bandwidth.
Device names are matched whole: a laptop's part, a MIG slice or a board that is not in the table is unknown, never taken
for its neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HALF = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Peaks:
    """The two roofs of a device."""

    device: str
    flops: Mapping[str, float]
    """FLOP/s by dtype."""
    bandwidth: float
    """Bytes a second."""
    source: str
    """Where the figures are from, in words."""
    measured: bool = False
    """By a benchmark on the machine: what was reached, so a run may come out somewhat above it."""

    def of(self, dtype: str) -> float | None:
        """FLOP/s in ``dtype``; ``None`` where it is not known."""
        return self.flops.get(dtype)


@dataclass(frozen=True, slots=True)
class _Board:
    names: tuple[str, ...]
    """As the driver gives them, the maker's name left out."""
    half: float
    """TFLOP/s, float16 and bfloat16."""
    single: float
    """TFLOP/s in float32: TF32 on tensor cores where the board has it, since libraries may use it."""
    bandwidth: float
    """GB/s."""
    source: str


_AMPERE = "NVIDIA Ampere GA102 white paper 2.1"
_ADA = "NVIDIA Ada GPU architecture white paper 2.1"
_A100 = "NVIDIA A100 data sheet, June 2021"
_H100 = "NVIDIA H100 data sheet (its figures with sparsity, halved)"

_BOARDS = (
    _Board(("A100-SXM4-80GB",), 312, 156, 2039, _A100),
    _Board(("A100 80GB PCIe", "A100-PCIE-80GB"), 312, 156, 1935, _A100),
    _Board(("A100-SXM4-40GB", "A100-PCIE-40GB"), 312, 156, 1555, "NVIDIA A100 data sheet, 2020"),
    _Board(("A30",), 165, 82, 933, "NVIDIA A30 data sheet"),
    _Board(("A10",), 125, 62.5, 600, "NVIDIA A10 data sheet"),
    _Board(("A40",), 149.7, 74.8, 696, "NVIDIA A40 data sheet"),
    _Board(("H100 80GB HBM3",), 989, 494, 3350, _H100),
    _Board(("H100 PCIe",), 756, 378, 2000, _H100),
    _Board(("H100 NVL",), 835, 417, 3900, _H100),
    _Board(("H200",), 989, 494, 4800, "NVIDIA H200 data sheet (its figures with sparsity, halved)"),
    _Board(("H200 NVL",), 835, 417, 4800, "NVIDIA H200 data sheet (its figures with sparsity, halved)"),
    _Board(("L4",), 121, 60, 300, "NVIDIA L4 data sheet (its figures with sparsity, halved)"),
    _Board(("L40",), 181, 90.5, 864, "NVIDIA L40 data sheet"),
    _Board(("L40S",), 362, 183, 864, "NVIDIA L40S data sheet"),
    _Board(("T4",), 65, 8.1, 320, "NVIDIA T4 data sheet"),
    _Board(("V100-SXM2-16GB", "V100-SXM2-32GB"), 125, 15.7, 900, "NVIDIA V100 data sheet"),
    _Board(("V100-PCIE-16GB", "V100-PCIE-32GB"), 112, 14, 900, "NVIDIA V100 data sheet"),
    _Board(("RTX A6000",), 154.8, 77.4, 768, _AMPERE),
    _Board(("RTX 6000 Ada Generation",), 364.2, 182.1, 960, _ADA),
    _Board(("GeForce RTX 3090",), 71, 35.6, 936, _AMPERE),
    _Board(("GeForce RTX 4090",), 165.2, 82.6, 1008, _ADA),
    _Board(("GeForce RTX 4080",), 97.5, 48.7, 717, _ADA),
)

TABLE: dict[str, Peaks] = {
    name.lower(): Peaks(
        name,
        {**dict.fromkeys(HALF, board.half * 1e12), "float32": board.single * 1e12},
        board.bandwidth * 1e9,
        board.source,
    )
    for board in _BOARDS
    for name in board.names
}
"""By the driver's name in lower case, the maker's name left out."""


def peaks_of(device: str, measured: Mapping[str, Peaks] | None = None) -> Peaks | None:
    """The peaks of a device by its name; ``None`` where they are not known.

    The data sheet goes before a measurement (``measured``, by :func:`key`): a roof that was reached is no bound.
    """
    name = key(device)
    return TABLE.get(name) or (measured or {}).get(name)


def key(device: str) -> str:
    """A device's name as peaks are kept by it."""
    name = device.lower().removesuffix(" (simulated)").strip()
    for maker in ("nvidia ", "tesla "):
        name = name.removeprefix(maker)
    return name
