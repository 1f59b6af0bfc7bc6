"""What is answered under ASGI when the disk for arriving bodies is full: Django has no request yet that could be."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from django_blobstore.rest.problems import MEDIA_TYPE, Problem, is_full

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Any, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)


def answering_full_disk(application: Application) -> Application:
    """Return `application` with a problem document (507) in place of an error about a full temporary directory.

    Django writes each body of more than FILE_UPLOAD_MAX_MEMORY_SIZE there before it looks at the request.
    """

    async def answering(scope: Any, receive: Receive, send: Send) -> None:
        try:
            await application(scope, receive, send)
        except OSError as error:
            if scope["type"] != "http" or not is_full(error):
                raise
            logger.exception("The temporary directory is full.")
            await _refuse(send)

    return answering


async def _refuse(send: Send) -> None:
    detail = "The server has no room to receive this content; nothing was stored."
    body = json.dumps(Problem(507, "storage-full", detail).as_dict()).encode()
    # The rest of the body is not read.
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 507, "headers": headers})
    await send({"type": "http.response.body", "body": body})
