# cython: language_level=3
"""A loopback (loopback.pyx) of a cluster: sessions have a branch at each of several shared links."""
cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from sidecar.core.cluster.branches cimport (Branches, Shards, branches_collect, session_join,
    session_leave)
from sidecar.core.cluster.slots cimport ADDRESS_MAX, NO_SHARD, ShardAddress, SLOT_COUNT, Slots
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.records cimport Link, Session
from tests.native.loopback cimport Loopback


@cython.no_gc_clear
cdef class ClusterLoopback(Loopback):
    """Shards are the shared links of `use_shards`, by number."""
    cdef Slots* slots
    cdef Shards shards

    def __cinit__(self, CommandTable table, **sizes):
        cdef int i
        self.slots = <Slots*>calloc(1, sizeof(Slots))
        if self.slots == NULL:
            raise MemoryError
        for i in range(SLOT_COUNT):
            self.slots.shard[i] = NO_SHARD
        self.core.slots = self.slots
        self.core.commands = table.commands

    def __dealloc__(self):
        cdef size_t address
        for address in self.sessions.values():
            session_leave(<Session*>address)
        free(self.slots.addresses)
        free(self.slots)
        free(self.shards.links)

    def use_shards(self, links, addresses):
        """These shared links lead to the shards, whose servers have these addresses."""
        cdef int i
        self.shards.links = <Link**>calloc(len(links), sizeof(Link*))
        self.slots.addresses = <ShardAddress*>calloc(len(links), sizeof(ShardAddress))
        if self.shards.links == NULL or self.slots.addresses == NULL:
            raise MemoryError
        for i, (link, address) in enumerate(zip(links, addresses, strict=True)):
            self.shards.links[i] = self.link(link)
            memcpy(self.slots.addresses[i].text, <const char*>address, min(len(address), ADDRESS_MAX))
            self.slots.addresses[i].size = len(address)
        self.shards.count = self.slots.count = len(links)

    def put_slots(self, int first, int last, int shard):
        """These slots are this shard's from now on."""
        cdef int i
        for i in range(first, last + 1):
            self.slots.shard[i] = shard
        self.slots.changes += 1

    def shard_of(self, int slot):
        """Which shard has a slot, None if nobody."""
        return None if self.slots.shard[slot] == NO_SHARD else self.slots.shard[slot]

    def join(self, Py_ssize_t session):
        """This session is a cluster's client."""
        if session_join(self.session(session), &self.shards) < 0:
            raise MemoryError

    def leave(self, Py_ssize_t session):
        """It is none any more."""
        session_leave(self.session(session))

    def drop(self, Py_ssize_t session):
        session_leave(self.session(session))
        Loopback.drop(self, session)

    def early(self, Py_ssize_t session):
        """Bytes of replies that have come before their turn."""
        cdef Branches* b = <Branches*>self.session(session).branches
        return b.early

    def turns(self, Py_ssize_t session):
        """[(shard, replies due)] of the session's turns."""
        cdef Branches* b = <Branches*>self.session(session).branches
        return [(b.ring[i & b.mask].shard, b.ring[i & b.mask].due) for i in range(b.head, b.tail)]

    def redirections(self):
        """How many told of another shard, and how many of an unknown one."""
        return self.slots.moved, self.slots.unknown

    cdef int settle(self) except -1:
        cdef Session* s = self.core.dirty
        while s != NULL:
            if s.owner != NULL:
                branches_collect(s)
            s = s.next_dirty
        while self.core.fed != NULL:
            self.core.fed.fed = False
            self.core.fed = self.core.fed.next_fed
        return Loopback.settle(self)
