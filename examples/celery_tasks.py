"""Celery with the sidecar as broker and for results: only the URL is special.

pip install celery redis
cd examples && celery -A celery_tasks worker      # REDIS_URL names another sidecar
python celery_tasks.py                            # in another shell

A worker waits in BRPOP and the caller of a task subscribes to its result. For that they have
connections of their own on the server; everything else shares one.
"""

from __future__ import annotations

import os

from celery import Celery, chord

URL = os.environ.get("REDIS_URL", "redis://localhost:6380")

app = Celery("celery_tasks", broker=URL, backend=URL)
app.conf.broker_connection_retry_on_startup = True
app.conf.result_expires = 3600  # s
# A task that was begun by a worker that died is given to another one.
app.conf.task_acks_late = True


@app.task
def add(left: int, right: int) -> int:
    """The sum of two numbers."""
    return left + right


@app.task
def total(numbers: list[int]) -> int:
    """The sum of many."""
    return sum(numbers)


if __name__ == "__main__":
    print("one task:", add.delay(2, 3).get(timeout=30))
    print("a chord:", chord(add.s(n, n) for n in range(10))(total.s()).get(timeout=30))
