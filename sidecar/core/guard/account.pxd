"""What the clients of one identity, or of one address, may use together (see account.pyx)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

cdef enum Reason:           # why a request was refused, or its client had to wait
    BY_COMMAND = 0          # the policy does not allow the command,
    BY_KEY = 1              #   or one of its keys
    BY_RATE = 2             # too many commands a second
    BY_REQUEST = 3          # the request is too large,
    BY_REPLY = 4            #   or the reply
    BY_BLOCKED = 5          # too many clients are blocked,
    BY_SUBSCRIBED = 6       #   or have subscribed,
    BY_CONNECTIONS = 7      #   or are connected
    BY_OVERLOAD = 8         # the loop lags
    REASONS = 9

cdef struct Allowance:      # 0 is no limit
    uint64_t interval       # nanoseconds between two commands,
    uint64_t burst          #   and how far the clients may be ahead of that
    bint delays             # who is ahead has to wait; otherwise it gets an error
    size_t in_flight
    size_t request
    size_t reply
    uint32_t pipeline
    uint32_t blocked
    uint32_t subscribed

cdef struct Use:
    Allowance limits
    uint64_t due            # nanoseconds of Core.clock: when the next command would be in time
    size_t in_flight        # bytes of requests that are not answered
    uint32_t blocked        # clients
    uint32_t subscribed
    uint64_t refused[REASONS]
    uint64_t delayed        # commands that had to wait for their time

cdef class Account:
    cdef Use use

cdef inline uint64_t use_reserve(Use* u, uint64_t now) noexcept nogil:
    """Take the next place in time for one command: when it may be executed, in nanoseconds; 0: now."""
    cdef uint64_t due = (u.due if u.due > now else now) + u.limits.interval
    u.due = due
    due = due - u.limits.burst if due > u.limits.burst else 0
    return due if due > now else 0

cdef inline bint use_has_time(const Use* u, uint64_t now) noexcept nogil:
    """Whether a command may be executed now."""
    cdef uint64_t due = (u.due if u.due > now else now) + u.limits.interval
    return due <= now + u.limits.burst
