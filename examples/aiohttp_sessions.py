"""Sessions of a web application in Redis, with aiohttp and redis-py: only the URL is special.

python examples/aiohttp_sessions.py [URL [PORT]], then twice:
curl --cookie-jar /tmp/c --cookie /tmp/c http://127.0.0.1:8080/

Each visit is one pipeline on the client's side and no connection of its own on the server's. With
`cache.rules = ["session:"]` in the sidecar's settings, reads of sessions come from its memory.
"""

from __future__ import annotations

import secrets
import sys

import redis.asyncio as redis
from aiohttp import web

URL = sys.argv[1] if len(sys.argv) > 1 else "redis://localhost:6380"
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 8080
COOKIE = "session"
LIFETIME = 1800  # s
REDIS = web.AppKey("redis", redis.Redis)


async def visit(request: web.Request) -> web.Response:
    """Count the visits of this session; a visitor without a session gets a new one."""
    session = request.cookies.get(COOKIE) or secrets.token_urlsafe(32)
    key = f"session:{session}"
    async with request.app[REDIS].pipeline(transaction=True) as pipeline:
        pipeline.hincrby(key, "visits", 1)
        pipeline.expire(key, LIFETIME)
        visits, _ = await pipeline.execute()
    answer = web.json_response({"visits": visits})
    answer.set_cookie(COOKIE, session, max_age=LIFETIME, httponly=True, samesite="Lax")
    return answer


async def leave(request: web.Request) -> web.Response:
    """End the session."""
    await request.app[REDIS].delete(f"session:{request.cookies.get(COOKIE)}")
    answer = web.Response(status=204)
    answer.del_cookie(COOKIE)
    return answer


async def close(app: web.Application) -> None:
    """Close the connections to the sidecar."""
    await app[REDIS].aclose()


application = web.Application()
application[REDIS] = redis.Redis.from_url(URL)
application.router.add_get("/", visit)
application.router.add_delete("/", leave)
application.on_cleanup.append(close)
web.run_app(application, host="127.0.0.1", port=PORT)
