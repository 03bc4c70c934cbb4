"""The command line: a function a verb, in the module that :mod:`llava_tui.cli.verbs` names for it."""

from __future__ import annotations

TYPE_CHECKING = False  # as in llava_tui
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None, prog_name: str = "llava-tui") -> None:
    """Runs the command line and ends the process. ``arguments`` without the program's name; None for the process's own.

    Exit codes: 0 done; 1 the answer is no; 2 bad usage or input, one clear line on stderr; 3 the run failed (the
    session says why); 130 interrupted.
    """
    from llava_tui.cli import interrupts

    interrupts.end_at_once()
    from llava_tui.cli.verbs import group

    group(arguments, prog_name=prog_name)
