"""Widgets on the line API: each draws a view of a timeline, whatever moved it there."""
