"""The glyphs and styles by which every screen says the same thing: how a session is doing, what its figures are worth,
which verdict there is. Imports nothing: lists are drawn before what reads sessions is loaded."""

from __future__ import annotations

MARKS = {
    "running": ("●", "LIVE", "live"),
    "paused": ("‖", "PAUSED", "warn"),
    "finished": ("■", "FINISHED", "strong"),
    "stopped": ("■", "STOPPED", "strong"),
    "failed": ("✗", "FAILED", "bad"),
    "interrupted": ("▲", "INTERRUPTED", "bad"),
}
"""A session's status: glyph, word, style."""
PROVENANCE = {"simulated": "SIMULATED", "random-weights": "RANDOM WEIGHTS", "imported": "IMPORTED"}
"""What is not a measurement of the named model says so wherever it is shown."""
GRADE_STYLES = {"A": "good", "B": "good", "C": "warn"}
"""Trust; what is worse is ``bad``."""
VERDICTS = {
    "faster": ("▼", "FASTER", "good"),
    "slower": ("▲", "SLOWER", "bad"),
    "same": ("=", "SAME", "text"),
    "inconclusive": ("?", "INCONCLUSIVE", "dim"),
    "not comparable": ("✗", "NOT COMPARABLE", "warn"),
}
"""A verdict: glyph, word, style."""
