"""Slows down the guessing of passwords."""

import asyncio
from collections import OrderedDict
from typing import Final

from acestep.serving.asgi import App, AsgiScope, Message, Receive, Send, refuse

LONGEST_WAIT_S: Final = 8.0
"""The longest wait before a password is looked at; the first wait is `FIRST_WAIT_S` and every wrong one doubles it."""

FIRST_WAIT_S: Final = 0.5

MOST_AT_ONCE: Final = 4
"""Logins of one address that may wait; more are refused at once."""

MOST_ADDRESSES: Final = 1_000
"""Addresses whose wrong passwords are remembered; the one that was quiet longest is forgotten first."""


class _Guesses:
    def __init__(self) -> None:
        self.wrong = 0
        self.waiting = 0
        self.turn = asyncio.Lock()


class SlowLogin:
    """Lets the logins of one address through one by one, and later after every wrong password."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._guesses: OrderedDict[str, _Guesses] = OrderedDict()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass a request on to the page, a login only in its turn; refuse too many at once with status 429."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/login"):
            await self._app(scope, receive, send)
            return
        guesses = self._of((scope.get("client") or ("",))[0])
        if guesses.waiting >= MOST_AT_ONCE:
            await refuse(send, 429, "Too many logins at once from this address. Wait a few seconds and try again.")
            return
        status = 0

        async def seen(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        guesses.waiting += 1
        try:
            async with guesses.turn:
                if guesses.wrong:
                    await asyncio.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(guesses.wrong - 1, 10)))
                await self._app(scope, receive, seen)
                guesses.wrong = 0 if status < 400 else guesses.wrong + 1
        finally:
            guesses.waiting -= 1

    def _of(self, address: str) -> _Guesses:
        guesses = self._guesses.setdefault(address, _Guesses())
        self._guesses.move_to_end(address)
        idle = (name for name, of in self._guesses.items() if not of.waiting and of is not guesses)
        if len(self._guesses) > MOST_ADDRESSES and (longest := next(idle, "")):
            del self._guesses[longest]
        return guesses
