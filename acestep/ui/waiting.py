"""How many runs of one visitor may wait."""

from collections.abc import Callable
from typing import Any

from acestep.serving.bounds import MOST_OF_A_VISITOR


def limit_waiting(page: Any, is_run: Callable[[Any], bool], *, shared: bool) -> None:
    """Let gradio's queue refuse a run of a visitor who has `MOST_OF_A_VISITOR` already.

    A visitor is a user who has logged in, otherwise an address. Through a public address (`shared`) all requests come
    from this machine, so there a visitor is a session.
    """
    queue = page._queue  # noqa: SLF001 - gradio has no public way to look at its queue
    push = queue.push

    def visitor(username: str | None, request: Any, session: str | None) -> str:
        return username or (session if shared else None) or (request.client.host if request.client else "")

    async def fair(body: Any, request: Any, username: str | None) -> Any:
        asked_by = visitor(username, request, body.session_hash)
        if body.fn_index is not None and is_run(page.fns.get(body.fn_index)):
            theirs = [
                event
                for event in list(queue.event_ids_to_events.values())
                if is_run(event.fn) and visitor(event.username, event.request, event.session_hash) == asked_by
            ]
            if len(theirs) >= MOST_OF_A_VISITOR:
                return False, f"Queue is full. {len(theirs)} of your runs wait already; wait for one.", "queue_full"
        return await push(body=body, request=request, username=username)

    queue.push = fair
