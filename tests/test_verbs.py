"""The verbs as they are loaded: each when it is called, and not before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from llava_tui.cli import verbs

Cli = Callable[..., subprocess.CompletedProcess[str]]


def _loaded(arguments: tuple[str, ...], sessions: Path) -> list[str]:
    """The modules that a command loaded in a process of its own."""
    code = (
        "import sys\nfrom llava_tui.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    print(end.code)\n"
        "print(*sorted(sys.modules))"
    )
    command = [sys.executable, "-c", code, "--sessions", str(sessions), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_the_list_of_verbs_says_what_each_verb_says_of_itself(verb: str) -> None:
    command = verbs.group.get_command(click.Context(verbs.group), verb)
    assert command is not None
    assert command.name == verb
    assert verbs.VERBS[verb][1] == command.get_short_help_str(1000)


def test_a_verb_loads_no_other_and_help_loads_none(sessions: Path) -> None:
    rooms = {f"llava_tui.cli.{place.split(':')[0]}" for place, _ in verbs.VERBS.values()}
    assert not rooms & set(_loaded(("--help",), sessions))
    loaded = rooms & set(_loaded(("control", "absent", "pause"), sessions))
    assert loaded == {"llava_tui.cli.controlling"}


def test_a_verb_that_is_not_there_is_refused_with_the_way_to_the_list(cli: Cli) -> None:
    done = cli("analyse")
    assert done.returncode == 2
    assert "No such command 'analyse'" in done.stderr


def test_the_first_paint_does_not_wait_for_what_reads_and_draws_sessions(sessions: Path) -> None:
    (sessions / "one").mkdir()
    (sessions / "one" / "session.json").touch()
    code = (
        "import sys\nfrom pathlib import Path\nimport llava_tui.cli.looking\nfrom llava_tui.session import finding\n"
        "assert finding.find(Path(sys.argv[1]), 'one').name == 'one'\n"
        "import llava_tui.tui.app, llava_tui.tui.screens.monitor\n"
        "print([name for name in ('numpy', 'msgspec', 'psutil', 'hashlib', 'tomllib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(sessions)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
