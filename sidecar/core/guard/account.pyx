# cython: language_level=3, cdivision=True
"""What the clients of one identity, or of one address, may use together, and what was refused them.

The rate of commands is kept as one point in time (a token bucket in the form of the generic cell rate
algorithm): each command moves `due` on by the interval between two, and it is in time as long as `due`
is no more than the burst ahead of the clock. A command that has to wait takes its place at once. So
clients that wait are served in the order in which they came, and what somebody has left unused is used
by the others.
"""

# By Reason: what metrics, logs and the audit stream call it.
NAMES = ("command", "key", "rate", "request", "reply", "blocked", "subscribed", "connections",
         "overload")

cdef enum:
    SECOND = 1000000000
    # The shell looks at those who wait about once in a millisecond. With less burst than a few of these
    # a client would not get the rate that it may have.
    LEAST_BURST = SECOND // 100


cdef class Account:
    """What the clients of one identity, or of one address, may use together."""

    def set_limits(self, *, double commands=0.0, double burst=0.0, bint delays=True,
                   size_t in_flight=0, size_t request=0, size_t reply=0, uint32_t pipeline=0,
                   uint32_t blocked=0, uint32_t subscribed=0):
        """Limit it to `commands` a second, `burst` of which may come at once (0: those of a second);
        who has more waits, if it `delays`, or is refused. Bytes of requests `in_flight`, of one
        `request` and one `reply`; requests that one client has under way (`pipeline`); clients that
        are `blocked` or `subscribed`. 0: no limit."""
        cdef Allowance* limits = &self.use.limits
        cdef uint64_t before = limits.interval
        limits.interval = limits.burst = 0
        if commands > 0:
            limits.interval = max(<uint64_t>(SECOND / commands), 1)
            burst = burst or commands
            limits.burst = max(<uint64_t>(burst * SECOND / commands), LEAST_BURST if delays else 0,
                               limits.interval)
        if limits.interval != before:
            self.use.due = 0
        limits.delays = delays
        limits.in_flight, limits.request, limits.reply = in_flight, request, reply
        limits.pipeline, limits.blocked, limits.subscribed = pipeline, blocked, subscribed

    def count(self, str reason):
        """Somebody was refused for this reason, which is in NAMES."""
        self.use.refused[NAMES.index(reason)] += 1

    @property
    def refused(self):
        """How many requests and clients were refused since the start, by reason."""
        return {reason: self.use.refused[i] for i, reason in enumerate(NAMES)
                if self.use.refused[i]}

    @property
    def delayed(self):
        """How many commands had to wait for their time since the start."""
        return self.use.delayed

    @property
    def in_use(self):
        """Bytes of requests in flight, clients that are blocked, clients that have subscribed."""
        return self.use.in_flight, self.use.blocked, self.use.subscribed
