"""What a session's folder holds beside its streams of events: ``control.jsonl`` (what is asked of the worker),
``items.jsonl`` (what a data set consists of), ``session.json`` (the header) and ``notes.json`` (what people said of
it)."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal

import msgspec

Verb = Literal["pause", "resume", "stop", "stop-now", "skip", "repeat", "extend"]
"""What a viewer may ask: ``stop`` after this run; ``stop-now`` in the middle of it; ``skip`` a case's remaining runs;
``repeat`` a case once more; ``extend`` by some rounds."""


class Command(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One line of ``control.jsonl``: what a viewer asks of the worker."""

    id: str
    """Unique; the answer carries it."""
    verb: str
    author: str
    """user@host of the viewer."""
    wall: int
    """Unix time, ns: a viewer elsewhere has no share in the worker's monotonic clock."""
    case: str = ""
    """For skip and repeat; empty: the case that is running."""
    rounds: int = 0
    """For extend."""


class Item(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of ``items.jsonl``, and one input of many: what a sequence of a batch is about."""

    path: str | tuple[str, ...]
    """Of a video, an image, a folder of frames or an event stream; several are images of one prompt."""
    prompt: str = ""
    """Empty: the plan's."""
    id: str = ""
    """Its user's name for it."""

    @property
    def paths(self) -> tuple[str, ...]:
        """One, or those of several images."""
        return (self.path,) if isinstance(self.path, str) else self.path

    @property
    def name(self) -> str:
        """Short: its id, else the file's name, with how many more there are."""
        first, *more = self.paths
        return self.id or (PurePath(first).name or first) + (f" +{len(more)}" if more else "")


class DatasetFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A data set, in short; its items are in ``items.jsonl``."""

    path: str
    """Of its file, or of the folders that it was read from."""
    count: int
    digest: str
    """SHA-256 of ``items.jsonl``: two sessions with equal digests had the same items in the same order."""


class HostFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    hostname: str
    os: str
    cpu: str
    cores: int
    memory: int
    container: str = ""
    governor: str = ""
    boot_id: str = ""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """``session.json``: written once by the worker, before anything is loaded."""

    schema: tuple[int, int]
    id: str
    created: str
    """ISO 8601 with offset."""
    t0: int
    """CLOCK_MONOTONIC ns (or simulated) at ``wall0``."""
    wall0: int
    """Unix time ns: ties every ``t`` to wall time."""
    provenance: str
    pipeline: str
    model: str
    plan: dict[str, Any]
    """The full plan: ``run --from SESSION`` runs it again."""
    host: HostFacts
    versions: dict[str, str] = {}
    argv: list[str] = []
    pid: int = 0
    dataset: DatasetFacts | None = None


class Notes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``notes.json``: what people said of a session."""

    name: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""
    baseline: bool = False
