"""The A/A spread: how much the medians of identical sessions differ on a machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from llava_tui.analysis.comparison import asked_of
from llava_tui.analysis.measures import measures, median
from llava_tui.analysis.steps import case_ids
from llava_tui.session.timeline import View

LEAST = 3
"""Sessions below which a spread says nothing."""


def spread_between(views: Sequence[View]) -> dict[str, float]:
    """By row (a stage's path, ``wall``, a metric): the standard deviation of the difference between the medians of two
    of these identical sessions, relative, pooled over their cases. Empty below :data:`LEAST` sessions."""
    if len(views) < LEAST:
        return {}
    squares: dict[str, list[float]] = {}
    for case in case_ids(views[0]):
        runs = [measures(view, case) for view in views]
        for asked in asked_of(runs[0]):
            logs = [math.log(middle) for of in runs if (middle := median(asked.values(of))) and middle > 0]
            if len(logs) == len(views):
                squares.setdefault(asked.key, []).append(2 * float(np.var(logs, ddof=1)))
    return {key: math.sqrt(sum(values) / len(values)) for key, values in squares.items()}
