"""``python -m llava_tui`` is ``llava-tui``."""

from llava_tui.cli import main

main(prog_name="llava-tui")
