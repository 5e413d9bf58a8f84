# cython: language_level=3
"""A loopback (loopback.pyx) of a cluster: sessions have a branch at each of several shared links."""
cimport cython
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from sidecar.core.cluster.branches cimport Branches, Shards, session_join, session_leave
from sidecar.core.cluster.redirection cimport retry_waiting
from sidecar.core.protocol.slots cimport NO_SHARD, SlotTable, Slots
from sidecar.core.cluster.turns cimport branches_collect
from sidecar.core.link.scripts cimport Scripts
from sidecar.core.protocol.commands cimport CommandTable
from sidecar.core.records cimport Link, Session
from tests.native.loopback cimport Loopback


@cython.no_gc_clear
cdef class ClusterLoopback(Loopback):
    """Shards are the shared links of `use_shards`, by number."""
    cdef SlotTable slot_table
    cdef Slots* slots
    cdef Shards shards
    cdef Scripts scripts

    def __cinit__(self, CommandTable table, **sizes):
        self.slot_table = SlotTable()
        self.slots = self.slot_table.slots
        self.core.slots = self.slots
        self.core.commands = table.commands

    def __dealloc__(self):
        cdef size_t address
        for address in self.sessions.values():
            session_leave(<Session*>address)
        free(self.shards.links)

    def use_shards(self, links, addresses):
        """These shared links lead to the shards, whose servers have these addresses."""
        cdef int i
        self.shards.links = <Link**>calloc(len(links), sizeof(Link*))
        if self.shards.links == NULL:
            raise MemoryError
        for i, link in enumerate(links):
            self.shards.links[i] = self.link(link)
            self.shards.links[i].shard = i
        self.shards.count = len(links)
        self.slot_table.use_addresses(
            [(address, i, True) for i, address in enumerate(addresses)])

    def use_scripts(self, Scripts scripts):
        """Scripts that clients give are kept here."""
        self.scripts = scripts
        self.core.scripts = <void*>scripts

    def use_addresses(self, addresses):
        """[(address, shard, whether the link leads there)] of all servers."""
        self.slot_table.use_addresses(addresses)

    def retry(self, bint all, uint32_t most):
        """As the shell does at each tick, and when the slots are known better: see redirection.pyx."""
        retry_waiting(&self.core, all, most)
        self.settle()

    @property
    def waits(self):
        """Whether redirected requests wait."""
        return self.slot_table.waits

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
        """How many MOVED there were, and how many named a server to which no link leads."""
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
