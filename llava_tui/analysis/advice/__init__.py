"""What would make a run faster: a trigger, its evidence, the gain to expect, and the command that puts it to the test.

A gain is told as the share of the run's time that it saves. It is bounded by Amdahl's law: no more than the share of
the part that the change touches. Where the evidence gives no figure there is none: a bound says what is the most. The
rules and their thresholds are those of ``docs/advice.md``, a module a family of them, one table in ``given``.
"""

from llava_tui.analysis.advice.given import advise, case_of, withheld
from llava_tui.analysis.advice.piece import Advice, Change

__all__ = ["Advice", "Change", "advise", "case_of", "withheld"]
