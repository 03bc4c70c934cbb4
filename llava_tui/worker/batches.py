"""Which inputs each run takes: a few of them again and again, or the items of a data set, each once a pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePath

from llava_tui import dataset
from llava_tui.dataset import chunk, rounds_of
from llava_tui.pipelines.base import Input
from llava_tui.plan import Case, Plan
from llava_tui.session.items import write_items
from llava_tui.session_files import DatasetFacts, Item

_DONE, _BROKEN = 1, 2


class Batches:
    """The inputs of a session, and what has become of each.

    Of a data set (``items``) a round's run takes its chunk (:func:`~llava_tui.dataset.chunk`), less what is broken; a
    pass over all of them is what ``rounds`` counts, one where the plan says ``auto``. A batch that items are too few
    for runs at its real size and is *partial*. Other inputs fill every batch round-robin, a round going on where the
    one before it stopped. Runs outside the rounds (cold, warm-up, cross-check …) take the first that can be read.
    """

    def __init__(self, plan: Plan, items: Sequence[Item] = (), rank: int = 0, world: int = 1) -> None:
        self.inputs: Sequence[Input] = items or plan.inputs
        self.is_dataset = bool(items)
        self.broken: dict[int, str] = {}
        """Inputs that cannot be read, and why."""
        self._passes = plan.rounds if isinstance(plan.rounds, int) else 1
        self._rank, self._world = rank, world
        # A byte an item and pass, from the start: what is known of a thousand items takes no more memory than of one.
        of_each = len(items) * self._passes
        self._done = {case.id: bytearray(of_each) for case in plan.cases()} if items else {}

    @property
    def count(self) -> int:
        return len(self.inputs)

    @property
    def several(self) -> bool:
        """Whether one input that cannot be read leaves others; so it is of a data set, even one of one item."""
        return self.is_dataset or self.count > 1

    @property
    def alone(self) -> bool:
        """Whether no other rank takes items too: what is left is known here."""
        return self._world == 1

    @property
    def all_broken(self) -> bool:
        """Whether nothing is left that a run could take."""
        return len(self.broken) == self.count

    def rounds(self, case: Case) -> int:
        """Rounds that the passes over the data set take in that case."""
        return self._passes * rounds_of(self.count, case.batch, self._world)

    def told(self) -> str:
        """How much that is, in words."""
        over = f"over {self.count:,} items"
        return f"one pass {over}" if self._passes == 1 else f"{self._passes:,} passes {over}"

    # --- what a run takes --------------------------------------------------------------------------------------------

    def of(self, case: Case, round_: int | None) -> tuple[int, ...]:
        """The inputs that a run takes, by their places: of that round, or the first where it is of none. Those of a
        data set are fewer than the batch where some are broken or done, or the pass ends; none where nothing is left.
        """
        if self.is_dataset and round_ is not None:
            begin = self._begin(case, round_)
            done = self._done[case.id]
            return tuple(
                item
                for item in chunk(round_, self.count, case.batch, self._rank, self._world)
                if item not in self.broken and not (begin is not None and done[begin + item])
            )
        # Of a data set no more are looked for than are needed: it may be long.
        most = case.batch if self.is_dataset else None
        readable = list(islice((place for place in range(self.count) if place not in self.broken), most))
        if not readable:
            return ()
        offset = (round_ or 0) * case.batch
        return tuple(readable[(offset + place) % len(readable)] for place in range(case.batch))

    def is_partial(self, case: Case, taken: Sequence[int]) -> bool:
        """Whether that run of a round is not of the case's batch."""
        return len(taken) < case.batch

    def is_over(self, case: Case, round_: int) -> bool:
        """Whether nothing is left of that round, or the case's passes have ended before it."""
        return self.is_dataset and not self.of(case, round_)

    def finished(self, case: Case, round_: int | None, taken: Iterable[int]) -> None:
        """These items are measured."""
        if self.is_dataset and round_ is not None and (begin := self._begin(case, round_)) is not None:
            done = self._done[case.id]
            for item in taken:
                done[begin + item] = _DONE

    def leave_out(self, place: int, reason: str) -> None:
        """That input cannot be read."""
        self.broken[place] = reason
        for done in self._done.values():
            for past in range(place, len(done), self.count):
                done[past] = done[past] or _BROKEN

    def restore(self, plan: Plan, finished: Mapping[tuple[str, int], Iterable[int]], broken: Mapping[int, str]) -> None:
        """What another worker had done: items that were measured, by case and round, and what it could not read. What
        the data set does not have (a damaged stream says so) is passed over."""
        for place, reason in broken.items():
            if 0 <= place < self.count:
                self.leave_out(place, reason)
        cases = {case.id: case for case in plan.cases()}
        for (name, round_), items in finished.items():
            if (case := cases.get(name)) is not None and round_ < self.rounds(case):
                self.finished(case, round_, [item for item in items if 0 <= item < self.count])

    def left(self, case: Case) -> int:
        """Items that are still to be measured in the case, over all passes; broken ones are not."""
        return self._done[case.id].count(0) if self.is_dataset else 0

    def next_round(self, case: Case) -> int:
        """The first round of the case's passes that anything is left of; of several ranks, for this one."""
        first = self._done[case.id].find(0)
        if first < 0:
            return self.rounds(case)
        past, item = divmod(first, self.count)
        return past * rounds_of(self.count, case.batch, self._world) + item // (case.batch * self._world)

    def _begin(self, case: Case, round_: int) -> int | None:
        """Where the pass of that round begins in what is done; ``None`` beyond the passes: a viewer's more rounds."""
        past = round_ // rounds_of(self.count, case.batch, self._world)
        return past * self.count if past < self._passes else None

    # --- what they are -----------------------------------------------------------------------------------------------

    def given(self, taken: Sequence[int]) -> tuple[Input, ...]:
        """These inputs, as a pipeline takes them."""
        return tuple(self.inputs[place] for place in taken)

    def name(self, taken: Sequence[int]) -> str:
        """A short name of a run's inputs: "clip.mp4", "clip.mp4 +3"."""
        distinct = list(dict.fromkeys(self.inputs[place] for place in taken))
        if not distinct:
            return ""
        return name_of(distinct[0]) + ("" if len(distinct) == 1 else f" +{len(distinct) - 1}")

    def why_all(self) -> str:
        """Why nothing can be run, in words."""
        return f"none of {self.count:,} inputs can be read: {self._why()}" if self.count > 1 else self._why()

    def why_some(self) -> str:
        """Which inputs were left out and why, in words; "" where none was."""
        return f"{len(self.broken):,} of {self.count:,} inputs left out: {self._why()}" if self.broken else ""

    def _why(self) -> str:
        more = len(self.broken) - 2
        return "; ".join(islice(self.broken.values(), 2)) + (f"; and {more:,} more" if more > 0 else "")


def take_in(folder: Path, plan: Plan, rank: int = 0, world: int = 1) -> tuple[Batches, DatasetFacts | None]:
    """The batches of a session that begins, and its data set in short, if it has one: its items are then kept in the
    session's ``folder``. Raises :class:`~llava_tui.dataset.DatasetError`, ``OSError``."""
    items = dataset.items_of(plan)
    batches = Batches(plan, items, rank, world)
    if not items:
        return batches, None
    return batches, DatasetFacts(path=dataset.source(plan), count=len(items), digest=write_items(folder, items))


def name_of(given: Input) -> str:
    """The short name of one input."""
    return given.name if isinstance(given, Item) else PurePath(given).name or given
