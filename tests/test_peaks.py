"""Peaks of this machine: measured in a process of its own, kept, and found again by the device's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava_tui import measured_peaks
from llava_tui.analysis.peaks import peaks_of
from llava_tui.measured_peaks import PeaksError, Record, keep, load

LAPTOP = Record("NVIDIA GeForce RTX 4090 Laptop GPU", {"float16": 7e13, "float32": 3e13}, 5e11, "2.14.1")


def test_what_was_measured_is_found_by_the_device(tmp_path: Path) -> None:
    file = keep(LAPTOP, tmp_path / "new" / "folder")
    keep(Record("AMD EPYC", {"float32": 6e10}, 6e9, "2.14.1", 2), file.parent)
    found = load(file.parent)
    peaks = peaks_of("NVIDIA GeForce RTX 4090 Laptop GPU", found)
    assert peaks is not None
    assert (peaks.of("float16"), peaks.bandwidth, peaks.measured) == (7e13, 5e11, True)
    assert "2 threads" in found["amd epyc"].source
    # A data sheet's roof is a bound; what was reached is none.
    keep(Record("NVIDIA H100 80GB HBM3", {"float16": 6e14}, 3e12), file.parent)
    sheet = peaks_of("NVIDIA H100 80GB HBM3", load(file.parent))
    assert sheet is not None
    assert not sheet.measured


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', '{"a": {"device": "a", "flops": {}}}'])
def test_a_damaged_file_is_no_file(tmp_path: Path, content: str) -> None:
    (tmp_path / measured_peaks.FILE).write_text(content)
    assert load(tmp_path) == {}
    keep(LAPTOP, tmp_path)
    assert json.loads((tmp_path / measured_peaks.FILE).read_text())["geforce rtx 4090 laptop gpu"]


def test_figures_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    keep(Record("a", {"float32": -1.0}, 1e9), tmp_path)
    keep(Record("b", {"float32": 1e9}, 0.0), tmp_path)
    assert load(tmp_path) == {}


def test_where_nothing_can_be_kept_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PeaksError, match="not kept"):
        keep(LAPTOP, tmp_path / "file" / "below")


@pytest.mark.models
def test_what_torch_says_when_it_cannot_measure_is_passed_on() -> None:
    with pytest.raises(PeaksError, match="could not measure"):
        measured_peaks.measure("no-such-device")


@pytest.mark.models
def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_tui.worker import peaks
    from llava_tui.worker.facts import cpu_model

    for name, value in (("SECONDS", 0.02), ("CPU_SIDE", 256), ("CPU_BUFFER", 1024)):
        monkeypatch.setattr(peaks, name, value)
    found = peaks.measure("cpu")
    assert found["device"] == cpu_model()
    assert 1e8 < found["flops"]["float32"] < 1e14
    assert 1e8 < found["bandwidth"] < 1e13
