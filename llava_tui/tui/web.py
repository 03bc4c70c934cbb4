"""The screens in a browser, through textual-serve: a process a visitor, on loopback, read-only unless asked otherwise.

Whoever has the link may look; nobody else: the link carries a secret that becomes a cookie, and a page of another site
cannot connect (its Origin is another). textual-serve has neither.
"""

from __future__ import annotations

import hmac
import secrets
import shlex
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from textual_serve.server import Server

COOKIE = "llava_tui"
SHUTDOWN_S = 2.0
"""How long visitors' processes may take to end."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GuardedServer(Server):
    """textual-serve's server behind a secret."""

    def __init__(self, arguments: list[str], *, host: str, port: int, say: Callable[[str], None]) -> None:
        """``arguments``: of `llava-tui`, for every visitor's process. ``say`` is told the link when all is ready."""
        command = shlex.join([sys.executable, "-P", "-m", "llava_tui", *arguments])
        super().__init__(command, host=host, port=port, title="llava-tui")
        self.secret = secrets.token_urlsafe(16)
        self._say = say

    @property
    def link(self) -> str:
        """What a visitor opens."""
        return f"{self.public_url}/?key={self.secret}"

    def initialize_logging(self) -> None:
        """Nothing but what goes wrong, on standard error."""
        import logging

        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard)
        return app

    async def on_startup(self, app: web.Application) -> None:
        """No banner: nobody is served yet."""

    def serve(self, debug: bool = False) -> None:
        """Until it is interrupted or terminated; the link is told once the port is open. Raises :class:`OSError`."""
        self.initialize_logging()
        web.run_app(
            self._make_app(),
            host=self.host,
            port=self.port,
            print=lambda *_: self._say(self.link),
            shutdown_timeout=SHUTDOWN_S,
        )

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Static files are for everybody; the page and its socket only with the secret, and only for our own page."""
        if request.path.startswith("/static/"):
            return await handler(request)
        origin = request.headers.get("Origin")
        if origin is not None and origin != self.public_url:
            raise web.HTTPForbidden(text="this page does not take requests of other pages")
        given = request.query.get("key")
        if given is not None and self._is_secret(given) and request.path == "/":
            # Out of the address bar, so that it is not passed on with it.
            answer = web.HTTPFound("/")
            answer.set_cookie(COOKIE, self.secret, httponly=True, samesite="Strict")
            raise answer
        if not self._is_secret(request.cookies.get(COOKIE, "")):
            raise web.HTTPForbidden(text="open the link that `llava-tui web` printed: it carries the key")
        response = await handler(request)
        if not response.prepared:
            socket = self.public_url.replace("http", "ws", 1)
            response.headers["Content-Security-Policy"] = (
                "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; "
                f"img-src 'self' data:; connect-src 'self' {socket}"
            )
        return response

    def _is_secret(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.secret.encode())


def serve(arguments: list[str], *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serves until it is interrupted or terminated. Raises :class:`~llava_tui.session.reader.SessionError` where the
    port cannot be had."""
    from llava_tui.session.reader import SessionError

    server: Any = GuardedServer(arguments, host=host, port=port, say=say)
    try:
        server.serve()
    except OSError as error:
        raise SessionError(f"cannot listen on {host}:{port}: {error.strerror or error}; --port takes another") from None
