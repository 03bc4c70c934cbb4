from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from screen_sessions import Recording, Timed, course, record

from llava_tui.session.timeline import Timeline


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A session of eight runs that ended well."""
    return record(tmp_path / "finished", course())


@pytest.fixture
def timeline(finished: Path) -> Timeline:
    return Timeline.open(finished)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Recording]]:
    """Makes sessions that are being written; none is left locked."""
    made: list[Recording] = []

    def make(happened: list[Timed] | None = None, **header: Any) -> Recording:
        recording = Recording(tmp_path / f"live-{len(made)}", course() if happened is None else happened, **header)
        made.append(recording)
        return recording

    yield make
    for recording in made:
        recording.close()
