# cython: language_level=3
"""The shared links of one identity to the shards of a cluster, as the core sees them: by number.

The clients of the identity find their links here (core/cluster/branches.pyx). So a link must be put here
before its connection is there, and one that takes its place at once.
"""
cimport cython
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from sidecar.core.records cimport Link
from sidecar.proxy.io.upstream cimport Upstream


@cython.no_gc_clear
cdef class ShardLinks:
    """Links by the shards' numbers. `links` has the same as objects."""

    def __cinit__(self):
        self.links = {}

    def __dealloc__(self):
        free(self.shards.links)

    def put(self, int number, Upstream link):
        """This is the shared link to the shard with this number; None: there is none any more."""
        cdef Link** links
        if number >= self.shards.count:
            links = <Link**>realloc(self.shards.links, (number + 1) * sizeof(Link*))
            if links == NULL:
                raise MemoryError
            memset(links + self.shards.count, 0, (number + 1 - self.shards.count) * sizeof(Link*))
            self.shards.links, self.shards.count = links, number + 1
        self.shards.links[number] = link.link if link is not None else NULL
        if link is None:
            self.links.pop(number, None)
        else:
            self.links[number] = link

    @property
    def any(self):
        """The number of the shard that gets what names no key."""
        return self.shards.any

    @any.setter
    def any(self, int number):
        self.shards.any = number
