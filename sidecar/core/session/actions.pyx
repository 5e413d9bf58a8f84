# cython: language_level=3
"""What is done with a request: one table for what a session may do.

The row is what the command's route says (commands.pxd), the column what the session's mode is and
what is to be expected to be open on its link (mode.pyx), the cell an Action. Requests that arrive
whole or inline are looked up in WHOLE; those that are too large to be kept, and are passed on piece
by piece, in PARTIAL. The table decides everything but what it cannot know:

* a write while writes are held back, and a shared link that is down, make any request wait;
* XREAD and XREADGROUP with BLOCK are rows like BLPOP (`has_block`), PARTIAL ones always;
* some subcommands have a route, and so a row, of their own (`SUBCOMMAND_ROUTES`, policy/routing.py):
  CLIENT REPLY, SCRIPT DEBUG, SCRIPT KILL. It counts when the whole request is there, and its number
  of arguments is one that the server accepts: otherwise the server refuses it;
* where the sidecar judges logins (`identities.mode`), AUTH, HELLO and CLIENT have the route of
  MAINT_NOTIFICATIONS: none of them goes to a server unseen, whatever the session has;
* EXEC is served by the sidecar when something in its reply is to be changed (`rewrites_exec`);
* EXEC, and MULTI, DISCARD, RESET, with arguments are errors, and have rows of their own (`row_of`).

As long as replies are due, what is open on a link is only expected. PIN and KEEP act on the
expectation at once: a link for good is right whatever the replies say. Where a wrong expectation
would do harm (the link goes back to the pool, or the sidecar serves what the server would have
queued), the session waits for the replies first: REPLIES.

A command that the sidecar serves goes to the server as well when the session has a link of its own:
SELECT in a transaction at once (KEEP), the others as the sidecar decides (proxy/session/commands.py).
If it changes anything, that link is then kept for good, so that the sidecar and the server never
differ in what they know of the session. After AUTH and HELLO the sidecar does not know the user any more: the link is pinned.
"""
from sidecar.core.protocol.commands cimport (ROUTE_DISCARD, ROUTE_EXEC, ROUTE_MULTI, ROUTE_RESET)

WHOLE[:] = [
    # SHARED     GATHERING    DEDICATED    WATCHING     IN_MULTI     PINNED
    [ORDINARY,   QUEUE,       QUEUE,       QUEUE,       QUEUE,       PASS],         # ordinary
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # blocking
    [QUEUE,      WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # XREAD, no BLOCK
    [QUEUE,      WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # SCRIPT, FUNCTION
    [OPEN_PIECE, WANT_OWN,    BEGIN_MULTI, BEGIN_MULTI, QUEUE,       PASS],         # MULTI
    [QUEUE,      CLOSE_PIECE, QUEUE,       QUEUE,       END_MULTI,   PASS],         # EXEC
    [QUEUE,      WANT_OWN,    QUEUE,       QUEUE,       END_MULTI,   PASS],         # DISCARD
    [WANT_OWN,   WANT_OWN,    BEGIN_WATCH, QUEUE,       QUEUE,       PASS],         # WATCH
    [QUEUE,      WANT_OWN,    QUEUE,       END_WATCH,   QUEUE,       PASS],         # UNWATCH
    [WANT_PINNED, WANT_OWN,   REPLIES,     PIN,         PIN,         PASS],         # SUBSCRIBE ...
    [WANT_ONCE,  WANT_OWN,    TAINT,       TAINT,       TAINT,       PASS],         # unknown, DEBUG
    [SERVE,      WANT_OWN,    REPLIES,     SERVE,       KEEP,        PASS],         # SELECT ...
    [SERVE,      WANT_OWN,    REPLIES,     SERVE,       PIN,         PASS],         # AUTH
    [SERVE,      WANT_OWN,    REPLIES,     SERVE,       PIN,         PASS],         # HELLO
    [SERVE,      WANT_OWN,    REPLIES,     SERVE,       SERVE,       PASS_CLIENT],  # CLIENT
    [SERVE,      WANT_OWN,    SERVE,       SERVE,       SERVE,       PASS_RESET],   # RESET
    [SERVE,      WANT_OWN,    SERVE,       SERVE,       SERVE,       PASS],         # QUIT
    [SERVE_WAIT, WANT_OWN,    IN_TURN,     QUEUE,       QUEUE,       PASS],         # WAIT, WAITAOF
    [HANG_UP,    HANG_UP,     HANG_UP,     HANG_UP,     HANG_UP,     PASS],         # POST, Host:
    [SERVE,      WANT_OWN,    REPLIES,     SERVE,       SERVE,       SERVE],        # MAINT_NOTIFICATIONS
    [QUEUE,      WANT_OWN,    QUEUE,       QUEUE,       END_MULTI,   PASS],         # EXEC x
    [QUEUE,      WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # MULTI x ...
]

PARTIAL[:] = [
    # SHARED     GATHERING    DEDICATED    WATCHING     IN_MULTI     PINNED
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # ordinary
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # blocking
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # XREAD
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # SCRIPT, FUNCTION
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # MULTI
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # EXEC
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # DISCARD
    [WANT_OWN,   WANT_OWN,    BEGIN_WATCH, QUEUE,       QUEUE,       PASS],         # WATCH
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # UNWATCH
    [WANT_PINNED, WANT_OWN,   REPLIES,     PIN,         PIN,         PASS],         # SUBSCRIBE ...
    [WANT_ONCE,  WANT_OWN,    TAINT,       TAINT,       TAINT,       PASS],         # unknown, DEBUG
    [WANT_PINNED, WANT_OWN,   REPLIES,     PIN,         PIN,         PASS],         # SELECT ...
    [WANT_PINNED, WANT_OWN,   REPLIES,     PIN,         PIN,         PASS],         # AUTH
    [WANT_PINNED, WANT_OWN,   REPLIES,     PIN,         PIN,         PASS],         # HELLO
    [WANT_PINNED, WANT_OWN,   REPLIES,     PIN,         PIN,         PASS],         # CLIENT
    [WANT_PINNED, WANT_OWN,   REPLIES,     PIN,         PIN,         PASS],         # RESET
    [WANT_PINNED, WANT_OWN,   REPLIES,     PIN,         PIN,         PASS],         # QUIT
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # WAIT, WAITAOF
    [HANG_UP,    HANG_UP,     HANG_UP,     HANG_UP,     HANG_UP,     PASS],         # POST, Host:
    [SERVE,      WANT_OWN,    REPLIES,     SERVE,       SERVE,       SERVE],        # MAINT_NOTIFICATIONS
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       END_MULTI,   PASS],         # EXEC x
    [WANT_OWN,   WANT_OWN,    QUEUE,       QUEUE,       QUEUE,       PASS],         # MULTI x ...
]


cdef int row_of(int route, int64_t argc) noexcept nogil:
    """The row of a request with so many arguments, its name included."""
    if argc != 1:
        if route == ROUTE_EXEC:
            return ROW_EXEC_ARGUMENTS
        if route == ROUTE_MULTI or route == ROUTE_DISCARD or route == ROUTE_RESET:
            return ROW_ARGUMENTS
    return route
