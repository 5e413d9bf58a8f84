# cython: language_level=3
"""Scripts that clients of a cluster have given, for servers that lack them.

Servers keep scripts for themselves: EVAL leaves one at one shard, and a server that comes later, or
takes over, has none. An application that has loaded a script expects to find it. So the sidecar keeps
a copy of what passes in EVAL and SCRIPT LOAD. Before the first EVALSHA of a script that is sent to a
shard goes SCRIPT LOAD. A server that answers by -NOSCRIPT all the same (it has forgotten it, or is
another one), which has executed nothing then, is sent SCRIPT LOAD, and the request is sent to it again
(receive.pyx). A digest that no client has given a script for stays -NOSCRIPT. So does one behind which
the client has sent more to this shard: that has been executed by now, or is about to be, and must not
come before it.

Sending it again is what -ASK is for. So the branch is told -ASK, with the address of the same server, in
the place of -NOSCRIPT, and core/cluster does what it does with any redirection, in the client's order.

An EVAL costs a hash of its script. Only one that has not been seen is copied, and gets its digest.
"""
from collections import OrderedDict
from hashlib import sha1
from libc.string cimport memset
from sidecar.core.hashing cimport sidecar_hash
from sidecar.core.link.pending cimport link_push
from sidecar.core.memory cimport buffer_append
from sidecar.core.protocol.cursor cimport Cursor, cursor_begin, cursor_next
from sidecar.core.protocol.request cimport arguments_of

cdef enum:
    DIGEST = 40             # characters of a digest
    # Bytes of one script, and of all that are kept: applications have few, of some KiB.
    LARGEST = 524288
    MOST = 4194304


cdef class Scripts:
    """The scripts by their digests. `seed` is one that clients do not know."""

    def __init__(self, uint64_t seed):
        self.seed = seed
        memset(self.brought, 0, sizeof(self.brought))
        self.again = {}
        self.forget()

    def keep(self, bytes script):
        """A client has given this script; those that were used least recently make room for it."""
        cdef object digest = sha1(script, usedforsecurity=False).hexdigest().encode()
        if len(script) > LARGEST:
            return
        if digest in self.kept:
            self.kept.move_to_end(digest)
            return
        self.kept[digest] = script
        self.size += len(script)
        while self.size > MOST:
            self.size -= len(self.kept.popitem(last=False)[1])
            memset(self.seen, 0, sizeof(self.seen))

    def forget(self):
        """The servers have none any more, since a client has said so."""
        self.kept = OrderedDict()
        self.size = 0
        memset(self.seen, 0, sizeof(self.seen))
        memset(self.brought, 0, sizeof(self.brought))

    def use_addresses(self, addresses):
        """The addresses of all servers, as `SlotTable.use_addresses` takes them."""
        self.again = {shard: b"-ASK 0 %b\r\n" % text for text, shard, in_use in addresses if in_use}

    def loading(self):
        """The requests that give a server all of them. It may be another one than before."""
        memset(self.brought, 0, sizeof(self.brought))
        return [load_request(script) for script in self.kept.values()]

    def __contains__(self, bytes digest):
        return digest in self.kept

    cdef bytes script_of(self, bytes digest):
        """The script with this digest, which is used now; None: it is not known."""
        digest = digest.lower()
        script = self.kept.get(digest)
        if script is not None:
            self.kept.move_to_end(digest)
        return script

    cdef int bring(self, Link* l, Command* c, bytes digest) except -1:
        """Queue on this link what loads the script with this digest: 1, or 0 if it is not known."""
        cdef bytes script = self.script_of(digest)
        cdef bytes request
        if script is None:
            return 0
        request = load_request(script)
        if link_push(l, NULL, c, request, len(request), 0) < 0:
            raise MemoryError
        return 1

    cdef int look_up(self, bytes digest, int shard, Buffer* load, Buffer* again) except -1:
        """Write what loads the script with this digest, and what has its request sent again: 1, or 0 if
        the script is not known."""
        cdef bytes request
        cdef bytes answer
        cdef bytes script = self.script_of(digest)
        if script is None or shard not in self.again:
            return 0
        request = load_request(script)
        answer = self.again[shard]
        if buffer_append(load, request, len(request)) < 0 \
                or buffer_append(again, answer, len(answer)) < 0:
            raise MemoryError
        return 1


cdef bytes load_request(bytes script):
    return b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(script), script)


cdef inline bint gives_script(const Command* c) noexcept nogil:
    """Whether its first argument is a script: EVAL, EVAL_RO."""
    return (c.name_len == 4 and memcmp(c.name, b"eval", 4) == 0) \
        or (c.name_len == 7 and memcmp(c.name, b"eval_ro", 7) == 0)


cdef void scripts_see(void* scripts, const Command* c, const char* p, size_t n,
                      const Scanner* scan) noexcept nogil:
    """Keep the script that the whole request p[0:n] gives, if it gives one."""
    cdef Cursor word
    cdef uint64_t h
    if not gives_script(c):
        return
    arguments_of(&word, p, n, scan)
    if not cursor_next(&word):
        return
    with gil:
        h = sidecar_hash((<Scripts>scripts).seed, word.arg, word.size)
        if (<Scripts>scripts).seen[h % SCRIPTS_SEEN] == h:
            return
        try:
            (<Scripts>scripts).keep(word.arg[:word.size])
            (<Scripts>scripts).seen[h % SCRIPTS_SEEN] = h
        except MemoryError:
            pass                        # it is a copy only


cdef int scripts_bring(void* scripts, Link* l, Command* c, const char* p, size_t n) noexcept nogil:
    """The whole request p[0:n] is about to be queued on this shared link to a shard. If it is EVALSHA, and
    the first one of its script there, the script goes before it. 0, or -1 without memory."""
    cdef Cursor word
    cdef uint64_t h
    cdef uint64_t* known
    if c.name_len < 7 or memcmp(c.name, b"evalsha", 7) != 0:
        return 0
    cursor_begin(&word, p, n)
    if not cursor_next(&word) or not cursor_next(&word) or word.size != DIGEST:
        return 0
    h = sidecar_hash((<Scripts>scripts).seed + <uint64_t>l.shard, word.arg, word.size)
    known = (<Scripts>scripts).brought + h % SCRIPTS_SEEN
    if known[0] == h:
        return 0
    with gil:
        try:
            if (<Scripts>scripts).bring(l, c, word.arg[:word.size]):
                known[0] = h
        except MemoryError:
            return -1
    return 0


cdef bint scripts_find(void* scripts, int shard, const char* request, size_t n, Buffer* load,
                       Buffer* again) noexcept nogil:
    """The request EVALSHA, of n bytes, was answered by -NOSCRIPT: whether its script is known. Then `load`
    is the request that loads it, and `again` the redirection to this shard's own server."""
    cdef Cursor c
    cursor_begin(&c, request, n)
    if not cursor_next(&c) or not cursor_next(&c) or c.size != DIGEST:
        return False
    with gil:
        try:
            return (<Scripts>scripts).look_up(c.arg[:c.size], shard, load, again) == 1
        except MemoryError:
            return False
