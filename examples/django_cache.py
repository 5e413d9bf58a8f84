"""Django's own Redis cache on the sidecar: only LOCATION is special.

pip install django redis hiredis
python examples/django_cache.py [URL]

The file is a whole Django project for the sake of the example. Yours needs CACHES and, to keep
sessions there as well, SESSION_ENGINE.
"""

from __future__ import annotations

import sys

import django
from django.conf import settings

URL = sys.argv[1] if len(sys.argv) > 1 else "redis://localhost:6380"

settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="only for this example",
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": URL,
            "KEY_PREFIX": "shop",
            "TIMEOUT": 300,
        }
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from django.core.cache import cache  # noqa: E402

cache.set("greeting", {"en": "hello"})
print("get:", cache.get("greeting"))
cache.set_many({"one": 1, "two": 2})
print("get_many:", cache.get_many(["one", "two", "three"]))
print("add:", cache.add("one", 3), "incr:", cache.incr("one"), "touch:", cache.touch("one", 60))
print("computed once:", cache.get_or_set("answer", lambda: 42))

session = SessionStore()
session["user"] = 17
session.save()
print("session:", SessionStore(session.session_key)["user"])

session.delete()
cache.delete_many(["greeting", "one", "two", "answer"])
cache.close()
