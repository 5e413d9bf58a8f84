"""What is done with a request, as a table (see actions.pyx)."""
from libc.stdint cimport int64_t, uint8_t

cdef enum Action:
    # With the link it has:
    QUEUE = 0               # queue it
    ORDINARY = 1            # answer it from the near cache, or queue it
    OPEN_PIECE = 2          # queue it; it is taken back if the piece turns out not to be whole
    CLOSE_PIECE = 3         # queue it; the piece is whole
    BEGIN_MULTI = 4         # queue it; and this, or in the next three that, is to be expected
    END_MULTI = 5
    BEGIN_WATCH = 6
    END_WATCH = 7
    TAINT = 8               # queue it; the link is closed afterwards
    KEEP = 9                # queue it; the link is its own for good from here on
    PASS = 10               # pinned: let its bytes pass
    PASS_CLIENT = 11       # likewise, but serve CLIENT with ids that only the sidecar understands
    PASS_RESET = 12        # likewise; when the server has done it, the link is left
    PIN = 13               # the link is its own for good from here on; let its bytes pass
    # Wait for:
    WANT_OWN = 14           # a dedicated link
    WANT_ONCE = 15          # a dedicated link, to be closed afterwards
    WANT_PINNED = 16        # a link for good
    REPLIES = 17            # the replies due; then look at it again
    IN_TURN = 18            # likewise, and queue it when none is due
    # Others do it:
    SERVE = 19              # the sidecar serves it
    SERVE_WAIT = 20         # the sidecar puts WAIT on a link of its own
    HANG_UP = 21            # close the client without a word

cdef enum Row:              # a Route, or one of these
    ROW_EXEC_ARGUMENTS = 20     # EXEC with arguments: an error that ends a transaction
    ROW_ARGUMENTS = 21          # MULTI, DISCARD or RESET with arguments: an error that ends none
    ROWS = 22
    COLUMNS = 6             # as many as there are situations (mode.pxd)

cdef uint8_t[ROWS][COLUMNS] WHOLE       # requests that are there as a whole
cdef uint8_t[ROWS][COLUMNS] PARTIAL     # requests too large to be kept: the name is there

cdef int row_of(int route, int64_t argc) noexcept nogil
