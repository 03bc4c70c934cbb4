"""The screens in a browser: a real server, a real visitor on loopback."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

aiohttp = pytest.importorskip("aiohttp")
pytest.importorskip("textual_serve")

ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


class Site:
    """A running `llava-tui web` and its link."""

    def __init__(self, process: asyncio.subprocess.Process, link: str) -> None:
        self.process = process
        self.link = link
        self.base = link.split("/?")[0]

    def visitors(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def site(folder: Path, *options: str) -> AsyncIterator[Site]:
    command = [
        sys.executable,
        "-m",
        "llava_tui",
        "--sessions",
        str(folder),
        "web",
        "--port",
        str(free_port()),
        *options,
    ]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        link = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
        yield Site(process, link)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 10)


async def until(visit: aiohttp.ClientWebSocketResponse, text: str) -> str:
    """What the browser was sent until it showed ``text``."""
    data = b""
    while text.encode() not in ESCAPES.sub(b"", data):
        message = await asyncio.wait_for(visit.receive(), 30)
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), ESCAPES.sub(b"", data)[-500:]
        data += message.data if isinstance(message.data, bytes) else message.data.encode()
    return ESCAPES.sub(b"", data).decode(errors="replace")


async def gone(visitors: list[psutil.Process]) -> None:
    for _ in range(500):
        if not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in visitors):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still there: {visitors}")


async def test_a_visitor_with_the_link_sees_the_session_and_may_only_look(finished: Path) -> None:
    async with site(finished.parent, finished.name) as here, aiohttp.ClientSession() as browser:
        async with browser.get(here.link) as page:
            assert page.status == 200
            assert "key=" not in str(page.url)
            assert "connect-src 'self' ws://" in page.headers["Content-Security-Policy"]
        async with browser.ws_connect(here.base + "/ws?width=120&height=40") as visit:
            await until(visit, "2 encode")
            await visit.send_json(["stdin", "?"])
            help_ = await until(visit, "Hold the picture")
            await visit.send_json(["stdin", "\x1b[F"])
            help_ += await until(visit, "palette")
            assert "One more round" not in help_
            assert "Make the session the pinned baseline" not in help_
            visitors = here.visitors()
            assert visitors
        await gone(visitors)


async def test_nobody_gets_in_without_the_key_or_from_another_page(finished: Path) -> None:
    async with site(finished.parent, finished.name) as here:
        for path, headers in (
            ("/", {}),
            ("/?key=guess", {}),
            ("/ws", {}),
            ("/ws", {"Cookie": "llava_tui=guess"}),
            (here.link.removeprefix(here.base), {"Origin": "http://elsewhere.example"}),
        ):
            async with aiohttp.ClientSession() as browser, browser.get(here.base + path, headers=headers) as answer:
                assert answer.status == 403, path
        assert not here.visitors()


async def test_visitors_go_with_the_server_however_it_ends(finished: Path) -> None:
    async with site(finished.parent, finished.name) as here, aiohttp.ClientSession() as browser:
        await (await browser.get(here.link)).read()
        async with browser.ws_connect(here.base + "/ws?width=80&height=24") as visit:
            await until(visit, "2 encode")
            visitors = here.visitors()
            os.kill(here.process.pid, signal.SIGKILL)
            await gone(visitors)


async def test_a_port_that_is_taken_is_said(finished: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "llava_tui", "--sessions", str(finished.parent), "web", "--port", port]
        process = await asyncio.create_subprocess_exec(
            *command, "--host", "127.0.0.1", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        _, error = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 2
        assert f"cannot listen on 127.0.0.1:{port}" in error.decode()
        assert "Traceback" not in error.decode()
