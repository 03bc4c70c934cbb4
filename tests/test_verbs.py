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
