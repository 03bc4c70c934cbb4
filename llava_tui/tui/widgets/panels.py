"""Every part of the monitor by name: how it is drawn, and what its drawing depends on.

Imported when a session is opened, not before the first paint: numpy takes its time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llava_tui.tui.widgets import gauges, heading, runbar, steps, strips, texts, transport_bar
from llava_tui.tui.widgets.arrangement import Wants
from llava_tui.tui.widgets.cells import Line
from llava_tui.tui.widgets.course import step_paths
from llava_tui.tui.widgets.look import Look

if TYPE_CHECKING:
    from llava_tui.session.timeline import Timeline, View

Draw = Callable[["View", Look, int, int], list[Line]]
"""(view, look, width, height) → at most ``height`` lines of ``width`` cells."""
Key = Callable[["View", Look], object]
"""Equal keys, equal drawings (at one size)."""

PANELS: dict[str, tuple[Draw, Key]] = {
    "heading": (heading.draw_heading, heading.heading_key),
    "steps": (steps.draw_steps, steps.steps_key),
    "run": (runbar.draw_run, runbar.run_key),
    "gauges": (gauges.draw_gauges, gauges.gauges_key),
    "strips": (strips.draw_strips, strips.strips_key),
    "output": (texts.draw_output, texts.output_key),
    "log": (texts.draw_log, texts.log_key),
    "transport": (transport_bar.draw_transport, transport_bar.transport_key),
}


def wants(view: View, look: Look) -> Wants:
    """How many lines the parts would take."""
    return Wants(
        top_steps=max(len(step_paths(view)), 1),
        steps=steps.rows_wanted(view),
        gauges=gauges.rows_wanted(view),
        strips=strips.rows_wanted(view, look),
        ribbons=len(view.timeline.ranks),
    )


def prepare(timeline: Timeline) -> None:
    """Works out what every moment's figures are taken from, so that the first jump in a long session is as quick as the
    others. For a thread beside the screen's."""
    from llava_tui.analysis.steps import case_ids, step_table
    from llava_tui.analysis.trust import badge

    if timeline.runs.n:
        middle = timeline.at(int(timeline.runs["t"][timeline.runs.n // 2]))
        for case in case_ids(timeline.now()):
            step_table(middle, case)
            badge(middle, case)
