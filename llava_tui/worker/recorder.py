"""What measures a run: the :class:`~llava_tui.pipelines.base.Probe` that turns calls into marks, and marks into spans.

While a run lasts it only fills buffers that exist already and, for whoever looks on, writes hints; spans are made when
the run has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llava_tui.events import Event, StageHint, StageInfo, TextHint
from llava_tui.worker.clock import Clock, Mark
from llava_tui.worker.stage_memory import Meter, StageMemory

HINT_EVERY_NS = 100_000_000
"""Text and repeated stages are hinted at most this often."""
NEVER = -HINT_EVERY_NS
HELD_TOKENS = 8
"""A character has at most four bytes; text that still ends inside one after this many tokens is simply broken."""


@dataclass(slots=True)
class Spans:
    """A run's times, as :class:`~llava_tui.events.RunEnd` has them: one entry a stage that this run could have had."""

    start: int
    wall: int
    stages: list[str]
    starts: list[int | None]
    durations: list[int | None]
    token_times: list[int]
    allocated: list[int | None] = field(default_factory=list)
    reserved: list[int | None] = field(default_factory=list)
    rss_peaks: list[int | None] = field(default_factory=list)
    rss_stages: list[int | None] = field(default_factory=list)
    last: str = ""
    """The stage that began last, in which a run that failed did so."""

    def fields(self) -> dict[str, Any]:
        """Those of :class:`~llava_tui.events.RunEnd`."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "last"}


class SilentProbe:
    """Measures nothing: only control is heard."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.check = check

    def begin(self, stage: str) -> None:
        """Nothing is measured."""

    def end(self, stage: str) -> None:
        """Nothing is measured."""

    def token(self, ids: Any) -> None:
        """Nothing is kept."""


class BareProbe(SilentProbe):
    """Times a run as a whole and nothing within it: for cross-checks, and for what measuring is compared with."""

    def __init__(self, clock: Clock, check: Callable[[], None]) -> None:
        super().__init__(check)
        self._clock = clock
        self._start = 0

    def start(self, run: int) -> None:
        """The run begins."""
        self._start = self._clock.start_run()

    def finish(self) -> Spans:
        """Waits for the device once."""
        return Spans(self._start, self._clock.finish_run() - self._start, [], [], [], [])


class Recorder:
    """One run's measurements. ``stages``: the part of the tree this run can reach, parents before children.

    ``write`` takes hints (``None``: none are written); ``check`` is called for :meth:`check`; ``detokenize``, where
    given, makes text of token ids for the hints. A step's side is that of its first child where it begins and of its
    last child where it ends.
    """

    def __init__(
        self,
        stages: Sequence[StageInfo],
        clock: Clock,
        check: Callable[[], None],
        write: Callable[[Event], None] | None = None,
        detokenize: Callable[[list[int]], str] | None = None,
        meter: Meter | None = None,
        capacity: int = 8192,
    ) -> None:
        self.check = check
        self._paths = [info.path for info in stages]
        self._index = {path: index for index, path in enumerate(self._paths)}
        self._on_device = [(_side(stages, info, 0), _side(stages, info, -1)) for info in stages]
        self._clock = clock
        self._now = clock.now
        self._device_mark = clock.device_mark
        self._write = write
        parents = [_ancestors(self._index, path) for path in self._paths]
        self._memory = StageMemory(meter, parents) if meter is not None else None
        self._text = TextTail(detokenize)
        # What happened, in order: index of the stage that began, or its complement where it ended; and the mark.
        self._what = [0] * capacity
        self._marks: list[Mark] = [0] * capacity
        self._used = 0
        self._token_marks: list[Mark] = []
        self._ids: list[Any] = []
        self._hinted = [NEVER] * len(stages)
        self._text_hinted = 0
        self._run = 0
        self._start = 0

    def start(self, run: int) -> None:
        """The run begins: everything of the last one is forgotten."""
        self._run = run
        self._used = 0
        self._token_marks.clear()
        self._ids.clear()
        self._text.clear()
        self._hinted = [NEVER] * len(self._paths)
        if self._memory is not None:
            self._memory.start()
        self._start = self._clock.start_run()
        self._text_hinted = self._start

    # --- the probe: all of it on the timed path ----------------------------------------------------------------------

    def begin(self, stage: str) -> None:
        """See :class:`~llava_tui.pipelines.base.Probe`. ``KeyError`` for a stage that is not in the tree."""
        index = self._index[stage]
        if self._write is not None:
            now = self._now()
            if now - self._hinted[index] >= HINT_EVERY_NS:
                self._hinted[index] = now
                self._write(StageHint(t=now, run=self._run, stage=stage))
        if self._memory is not None:
            self._memory.change(index)
        used = self._used
        if used == len(self._what):
            self._grow()
        self._what[used] = index
        self._used = used + 1
        self._marks[used] = self._device_mark() if self._on_device[index][0] else self._now()

    def end(self, stage: str) -> None:
        """See :class:`~llava_tui.pipelines.base.Probe`."""
        index = self._index[stage]
        used = self._used
        if used == len(self._what):
            self._grow()
        self._marks[used] = self._device_mark() if self._on_device[index][1] else self._now()
        self._what[used] = ~index
        self._used = used + 1
        if self._memory is not None:
            self._memory.leave(index)

    def token(self, ids: Any) -> None:
        """See :class:`~llava_tui.pipelines.base.Probe`. The ids stay on their device until they are hinted."""
        self._token_marks.append(self._device_mark())
        self._ids.append(ids)
        if self._write is not None:
            now = self._now()
            if now - self._text_hinted >= HINT_EVERY_NS:
                self._text_hinted = now
                self._hint_text(self._write)

    def _hint_text(self, write: Callable[[Event], None]) -> None:
        text = self._text.add(self.first_sequence(self._text.seen))
        write(TextHint(t=self._now(), run=self._run, tokens=len(self._ids), text=text))

    def _grow(self) -> None:
        self._what += [0] * len(self._what)
        self._marks += [0] * len(self._marks)

    # --- after the run -----------------------------------------------------------------------------------------------

    def first_sequence(self, since: int = 0) -> list[int]:
        """Token ids of the batch's first sequence, from the ``since``-th on; waits for the device, once."""
        first = [ids[0] for ids in self._ids[since:]]
        if first and hasattr(first[0], "device"):
            import torch

            first = torch.stack(first).tolist()
        return first

    def finish(self) -> Spans:
        """Waits for the device once and lays everything out; also after a run that was cut short."""
        end = self._clock.finish_run()
        memory = self._memory.end() if self._memory is not None else {}
        if self._write is not None and len(self._ids) > self._text.seen:
            self._hint_text(self._write)
        at, between = self._clock.at, self._clock.between
        count = len(self._paths)
        first: list[Mark] = [None] * count
        began: list[Mark] = [None] * count
        depth = [0] * count
        sums: list[int | None] = [None] * count
        unknown = [False] * count
        last = ""
        for position in range(self._used):
            what, mark = self._what[position], self._marks[position]
            index = what if what >= 0 else ~what
            if what >= 0:
                last = self._paths[index]
                if depth[index] == 0:
                    began[index] = mark
                    if first[index] is None:
                        first[index] = mark
                depth[index] += 1
            elif depth[index] > 0:
                depth[index] -= 1
                if depth[index] == 0:
                    span = between(began[index], mark)
                    if span is None:
                        unknown[index] = True
                    else:
                        sums[index] = (sums[index] or 0) + span
        starts = [at(mark) for mark in first]
        tokens = [at(mark) for mark in self._token_marks]
        return Spans(
            start=self._start,
            wall=end - self._start,
            stages=list(self._paths),
            starts=[None if start is None else start - self._start for start in starts],
            # A stage still open (the run was cut short) or with a call that could not be timed has no duration.
            durations=[None if unknown[i] or depth[i] else sums[i] for i in range(count)],
            token_times=[token - self._start for token in tokens if token is not None],
            last=last,
            **memory,
        )


class TextTail:
    """Text of a growing sequence, piece by piece: a token may hold only part of a character, or change its
    neighbour's spacing, so each piece is decoded together with the one before it."""

    def __init__(self, detokenize: Callable[[list[int]], str] | None) -> None:
        self._detokenize = detokenize
        self._ids: list[int] = []
        self._said = 0
        self.seen = 0

    def clear(self) -> None:
        """A new sequence."""
        self._ids = []
        self._said = 0
        self.seen = 0

    def add(self, ids: list[int]) -> str:
        """What these further tokens add to the text; "" where they end inside a character."""
        self.seen += len(ids)
        if self._detokenize is None:
            return ""
        self._ids += ids
        before = self._detokenize(self._ids[: self._said])
        for end in range(len(self._ids), max(self._said, len(self._ids) - 4), -1):
            text = self._detokenize(self._ids[:end])
            if not text.endswith("\ufffd"):
                break
        else:
            end = len(self._ids)
            if end - self._said < HELD_TOKENS:
                return ""
            text = self._detokenize(self._ids)
        added = text[len(before) :] if text.startswith(before) else self._detokenize(self._ids[self._said : end])
        self._ids, self._said = self._ids[self._said :], end - self._said
        return added


def _side(stages: Sequence[StageInfo], info: StageInfo, which: int) -> bool:
    """Whether a stage begins (0) or ends (-1) on the device: its own side, or that of its first or last child."""
    depth = info.path.count(".") + 1
    children = [s for s in stages if s.path.startswith(info.path + ".") and s.path.count(".") == depth]
    return _side(stages, children[which], which) if children else info.side == "device"


def _ancestors(index: dict[str, int], path: str) -> tuple[int, ...]:
    parts = path.split(".")
    paths = (".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
    return tuple(index[p] for p in paths if p in index)
