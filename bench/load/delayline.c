/* delayline PORT TARGET NANOSECONDS: a server that is further away.
 *
 * Passes connections to PORT of 127.0.0.1 on to port TARGET. What clients send goes on at once;
 * what the target answers goes on so many nanoseconds after it arrived here: a round trip is
 * longer by exactly that. Throughput is not limited, no byte changes and none overtakes another.
 *
 * All delays are equal, so what arrived first is due first: one queue for all connections, and one
 * timerfd armed for its head. A timerfd has none of the slack of epoll's own timeout; it is late by
 * what the kernel needs to wake a process, some 50 us. With a delay of 0 nothing is queued.
 *
 *   server -> read -> [ line: due, due, due ... ] -> ready of its connection -> write -> client
 *
 * A connection whose reader is slow keeps what is ready and is no longer read from above LIMIT.
 * An end of stream travels like data, so that it never overtakes the last bytes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 262144, EVENTS = 256, LIMIT = 32 << 20 };
#define DIE(what) (perror("delayline: " what), exit(2))

struct end;

struct piece {                           /* bytes on their way; size 0: the end of the stream */
    struct piece *next, *next_due;
    struct end *to;
    uint64_t due;
    size_t size, sent;
    char data[];
};

struct end {                             /* one socket of a pair */
    int fd, watched, is_near, read_over, write_over;
    struct end *other;
    struct pair *pair;
    struct piece *first, *last;          /* ready: due, not yet written */
    size_t held;                         /* bytes on their way to this end, ready or not */
};

struct pair {
    struct end near, far;                /* near: where the client is */
    int dead, on_line;                   /* on_line: pieces that the line still has of it */
    struct pair *next_dead;
};

static int epoll_fd, timer_fd, listen_fd;
static uint64_t delay;
static struct piece *line_first, *line_last;
static struct pair *graveyard;           /* events of this turn may still name them */
static char rx[READ_SIZE];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void bury(struct pair *p)
{
    if (!p->dead || p->on_line) return;
    p->next_dead = graveyard, graveyard = p;
}

static void drop_ready(struct end *e)
{
    for (struct piece *p; (p = e->first); free(p)) e->first = p->next;
    e->last = NULL;
}

static void kill_pair(struct pair *p)
{
    if (p->dead) return;
    p->dead = 1;
    close(p->near.fd), close(p->far.fd);
    drop_ready(&p->near), drop_ready(&p->far);
    bury(p);
}

static void watch(struct end *e)         /* read unless too much is held, write if need be */
{
    int want = (e->first ? EPOLLOUT : 0);
    if (!e->read_over && e->other->held < LIMIT) want |= EPOLLIN;
    if (want == e->watched) return;
    /* Removed if nothing is wanted, since epoll tells of an end that is over again and again. */
    int how = !e->watched ? EPOLL_CTL_ADD : want ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    struct epoll_event event = {.events = (uint32_t)want, .data.ptr = e};
    if (epoll_ctl(epoll_fd, how, e->fd, &event)) DIE("epoll_ctl");
    e->watched = want;
}

static void flush(struct end *e)         /* write what is ready */
{
    struct pair *pair = e->pair;
    for (struct piece *p; !pair->dead && (p = e->first);) {
        if (!p->size) {
            shutdown(e->fd, SHUT_WR);
            e->write_over = 1;
        } else {
            ssize_t n = send(e->fd, p->data + p->sent, p->size - p->sent, MSG_NOSIGNAL);
            if (n < 0 && (errno == EAGAIN || errno == EINTR)) break;
            if (n < 0) return kill_pair(pair);
            p->sent += (size_t)n, e->held -= (size_t)n;
            if (p->sent < p->size) break;
        }
        e->first = p->next;
        if (!e->first) e->last = NULL;
        free(p);
    }
    if (e->write_over && e->other->write_over) return kill_pair(pair);
    watch(e), watch(e->other);
}

static void make_ready(struct piece *p)
{
    struct end *to = p->to;
    p->next = NULL;
    if (to->last) to->last->next = p;
    else to->first = p;
    to->last = p;
}

static void arm(void)
{
    struct itimerspec at = {0};
    if (line_first) {
        at.it_value.tv_sec = (time_t)(line_first->due / 1000000000u);
        at.it_value.tv_nsec = (long)(line_first->due % 1000000000u);
    }
    if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL)) DIE("timerfd_settime");
}

static void let_go(void)                 /* everything on the line that is due */
{
    uint64_t now = now_ns();
    struct piece *p;
    while ((p = line_first) && p->due <= now) {
        line_first = p->next_due;
        if (!line_first) line_last = NULL;
        struct pair *pair = p->to->pair;
        pair->on_line--;
        if (pair->dead) { free(p); bury(pair); continue; }
        make_ready(p);
        flush(p->to);
    }
    arm();
}

static void pass_on(struct end *from, const char *data, size_t size)
{
    struct end *to = from->other;
    struct piece *p = malloc(sizeof *p + size);
    if (!p) DIE("malloc");
    memcpy(p->data, data, size);
    p->to = to, p->size = size, p->sent = 0, p->next = p->next_due = NULL;
    to->held += size;
    if (from->is_near || !delay) {
        make_ready(p);
        return flush(to);
    }
    p->due = now_ns() + delay;
    to->pair->on_line++;
    if (line_last) line_last->next_due = p;
    else line_first = p;
    int was_empty = line_last == NULL;
    line_last = p;
    if (was_empty) arm();
    watch(from);
}

static void readable(struct end *e)
{
    if (e->read_over) return;            /* broken; the next write says so */
    ssize_t n = recv(e->fd, rx, sizeof rx, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n < 0) return kill_pair(e->pair);
    if (n == 0) e->read_over = 1;
    pass_on(e, rx, (size_t)n);
}

static struct sockaddr_in here(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

static void accept_one(int target)
{
    int one = 1, fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    struct sockaddr_in at = here(target);
    int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (far < 0 || connect(far, (void *)&at, sizeof at)) {
        close(fd);
        if (far >= 0) close(far);
        return;
    }
    fcntl(far, F_SETFL, fcntl(far, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(far, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct pair *p = calloc(1, sizeof *p);
    if (!p) DIE("calloc");
    p->near = (struct end){.fd = fd, .is_near = 1, .other = &p->far, .pair = p};
    p->far = (struct end){.fd = far, .other = &p->near, .pair = p};
    watch(&p->near), watch(&p->far);
}

static void set_up(int port)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);
    int one = 1;
    struct sockaddr_in at = here(port);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listen_fd, (void *)&at, sizeof at) || listen(listen_fd, 4096)) DIE("listen");
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listen_fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
    event.data.ptr = &timer_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &event);
}

int main(int argc, char **argv)
{
    if (argc != 4) return fprintf(stderr, "usage: delayline PORT TARGET NANOSECONDS\n"), 2;
    delay = strtoull(argv[3], NULL, 10);
    set_up(atoi(argv[1]));
    for (struct epoll_event events[EVENTS];;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct end *e = events[i].data.ptr;
            uint64_t expired;
            if (events[i].data.ptr == &listen_fd) { accept_one(atoi(argv[2])); continue; }
            if (events[i].data.ptr == &timer_fd) {
                if (read(timer_fd, &expired, sizeof expired) > 0) let_go();
                continue;
            }
            if (!e->pair->dead && events[i].events & EPOLLOUT) flush(e);
            if (!e->pair->dead && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(e);
        }
        for (struct pair *p; (p = graveyard); free(p)) graveyard = p->next_dead;
    }
}
