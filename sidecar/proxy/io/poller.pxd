"""Readiness of many sockets in one call, where the system has epoll.

The event loop watches one descriptor: this set's. When it turns readable, one `poller_wait` tells all
the sockets that are ready, and they are served by C calls. Without it the loop would enter Python
once per socket. Events are edge-triggered: the kernel tells of a socket again only when something new
has come. So a reader goes on until a read comes back short, and once more when the event tells of a
hang-up. On systems without epoll `poller_open` gives -1, and the reactor has the loop watch each
socket: that is slower and otherwise the same.
"""
from libc.stdint cimport uint32_t

cdef extern from * nogil:
    """
    #include <stdint.h>
    #ifdef __linux__
    #include <sys/epoll.h>
    #include <unistd.h>
    typedef struct epoll_event poller_event;
    static int poller_open(void) { return epoll_create1(EPOLL_CLOEXEC); }
    static int poller_set(int p, int fd, int had, int reading, int writing, void *who) {
        struct epoll_event e;
        int want = reading || writing;
        if (!had && !want)
            return 0;
        e.events = (reading ? EPOLLIN | EPOLLRDHUP : 0) | (writing ? EPOLLOUT : 0) | EPOLLET;
        e.data.ptr = who;
        return epoll_ctl(p, want ? (had ? EPOLL_CTL_MOD : EPOLL_CTL_ADD) : EPOLL_CTL_DEL, fd, &e);
    }
    static int poller_wait(int p, poller_event *events, int n) {
        return epoll_wait(p, events, n, 0);
    }
    static void poller_close(int p) { close(p); }
    #define poller_readable(e) ((e).events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
    #define poller_writable(e) ((e).events & (EPOLLOUT | EPOLLERR))
    #define poller_hung_up(e) ((e).events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
    #define poller_who(e) ((e).data.ptr)
    #else
    typedef struct { void *who; } poller_event;
    static int poller_open(void) { return -1; }
    static int poller_set(int p, int fd, int had, int reading, int writing, void *who) {
        return -1;
    }
    static int poller_wait(int p, poller_event *events, int n) { return 0; }
    static void poller_close(int p) {}
    #define poller_readable(e) 0
    #define poller_writable(e) 0
    #define poller_hung_up(e) 0
    #define poller_who(e) ((e).who)
    #endif
    """
    ctypedef struct poller_event:
        pass
    int poller_open()
    int poller_set(int p, int fd, int had, int reading, int writing, void* who)
    int poller_wait(int p, poller_event* events, int n)
    void poller_close(int p)
    uint32_t poller_readable(poller_event e)
    uint32_t poller_writable(poller_event e)
    uint32_t poller_hung_up(poller_event e)
    void* poller_who(poller_event e)
