"""A session store in Redis for FastAPI, with redis-py: only the URL is special.

pip install fastapi uvicorn; python examples/fastapi_sessions.py [URL [PORT]], then twice:
curl --cookie-jar /tmp/c --cookie /tmp/c http://127.0.0.1:8080/

A session is a hash with a lifetime. Each visit is one pipeline on the client's side and no
connection of its own on the server's.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import redis.asyncio as redis
import uvicorn
from fastapi import Cookie, Depends, FastAPI, Response

URL = sys.argv[1] if len(sys.argv) > 1 else "redis://localhost:6380"
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 8080
COOKIE = "session"
LIFETIME = 1800  # s


class SessionStore:
    """The sessions of all visitors."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url, decode_responses=True)

    async def count(self, session: str, field: str) -> int:
        """Add one to a number of this session, which begins or lives on."""
        key = f"session:{session}"
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hincrby(key, field, 1)
            pipeline.expire(key, LIFETIME)
            value, _ = await pipeline.execute()
        return int(value)

    async def end(self, session: str) -> None:
        """Forget this session."""
        await self._redis.delete(f"session:{session}")

    async def close(self) -> None:
        """Close the connections to the sidecar."""
        await self._redis.aclose()


store = SessionStore(URL)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """While the application runs."""
    yield
    await store.close()


application = FastAPI(lifespan=lifespan)
Sessions = Annotated[SessionStore, Depends(lambda: store)]
Session = Annotated[str, Cookie(alias=COOKIE)]


@application.get("/")
async def visit(response: Response, sessions: Sessions, session: Session = "") -> dict[str, int]:
    """Count the visits of this session; a visitor without a session gets a new one."""
    session = session or secrets.token_urlsafe(32)
    response.set_cookie(COOKIE, session, max_age=LIFETIME, httponly=True, samesite="lax")
    return {"visits": await sessions.count(session, "visits")}


@application.delete("/", status_code=204)
async def leave(response: Response, sessions: Sessions, session: Session = "") -> None:
    """End the session."""
    await sessions.end(session)
    response.delete_cookie(COOKIE)


uvicorn.run(application, host="127.0.0.1", port=PORT, log_level="warning")
