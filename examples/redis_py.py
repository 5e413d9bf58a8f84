"""redis-py through the sidecar: nothing but the URL is special.

python examples/redis_py.py [URL]
"""

from __future__ import annotations

import sys

import redis

URL = sys.argv[1] if len(sys.argv) > 1 else "redis://localhost:6380"

# RESP3 works the same: add protocol=3.
with redis.Redis.from_url(URL, decode_responses=True) as client:
    client.set("greeting", "hello", ex=60)
    print("GET greeting:", client.get("greeting"))

    with client.pipeline(transaction=False) as pipeline:
        for number in range(3):
            pipeline.rpush("numbers", number)
        pipeline.lrange("numbers", 0, -1)
        print("pipeline:", pipeline.execute())

    # WATCH gives this client a connection of its own until EXEC.
    with client.pipeline() as transaction:
        transaction.watch("greeting")
        seen = transaction.get("greeting")
        transaction.multi()
        transaction.set("greeting", f"{seen}, world", keepttl=True)
        transaction.get("greeting")
        print("transaction:", transaction.execute())

    with client.pubsub(ignore_subscribe_messages=True) as subscriber:
        subscriber.subscribe("news")
        subscriber.get_message(timeout=1)  # the confirmation, ignored
        client.publish("news", "it works")
        message = subscriber.get_message(timeout=1)
        print("message:", message and message["data"])

    client.delete("greeting", "numbers")
