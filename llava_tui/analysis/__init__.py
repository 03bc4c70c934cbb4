"""Pure functions of a timeline: no input or output, no textual, no torch."""
