/* loadgen: a closed-loop Redis load generator in one file, libc only.
 *
 * It opens N connections (TCP or unix socket, optionally TLS), keeps one batch of P commands
 * outstanding on each busy one, and measures a window of S seconds after W seconds of warm-up.
 * It is written so that it is never the slow part: one read and one write per socket event, no
 * allocation after start, replies are checked while they stream by and are never stored.
 *
 * What is checked: each reply must be the one its command calls for, in order: "+OK" for SET, a
 * bulk of exactly the value size for GET, and the first 16 bytes of a value must be its own key
 * (so a reply handed to the wrong client is an error, not a success). An error reply or a wrong
 * line counts one error; bytes after which the frame cannot be found again also close the
 * connection. Commands are counted inside the window only, errors always.
 *
 * CPU: every --pid name=PID is read at both edges of the window, so that neither start-up nor
 * warm-up nor draining is charged. Preferred source: the process's CPU clock (exact to the
 * nanosecond, all threads); then /proc/PID/task/N/schedstat (ns); then /proc/PID/stat (ticks).
 *
 * Keys are drawn uniformly, or with --zipf S: key number k with a weight of 1 / (k + 1)^S. Those
 * draws come from a table made beforehand (Walker's alias method): one look, two random numbers.
 *
 * TLS is OpenSSL 3 or 1.1 found by dlopen at run time: no headers are needed to compile.
 *
 * Latency is that of a batch: from its write until its last reply, in a log-linear histogram
 * with 128 steps per power of two (error below 0.8 %).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { KEY = 16, KEY_AT = 22, MAX_PIPELINE = 1024, MAX_PIDS = 8, INLINE_VALUE = 16384,
       READ_SIZE = 262144 };     /* KEY_AT: where a key's digits stand in both commands */
#define DIE(...) (fprintf(stderr, "loadgen: " __VA_ARGS__), fputc('\n', stderr), exit(2))

static struct {
    const char *host, *unix_path;
    int port, tls, conns, busy, pipeline, get_percent, fill, hold;
    long value, keys;
    double seconds, warmup, zipf;
    uint64_t seed;
} opt = {.host = "127.0.0.1", .conns = 1, .busy = -1, .pipeline = 1, .get_percent = 100,
         .value = 16, .keys = 1000, .seconds = 1, .warmup = 0.2, .seed = 1};

struct conn {
    int fd, out_waits, dead, touch;      /* touch: this batch is one GET, outside the load */
    void *ssl;
    uint64_t sent_at;                    /* ns, when the current batch was written */
    uint32_t *want;                      /* key number * 2 + is_set, one per command of the batch */
    int n, got;                          /* commands in the batch, replies received */
    char *out;                           /* command headers (and small values) */
    struct iovec *iov;
    int iov_n, iov_at;
    char line[96];                       /* a reply line split over reads */
    int line_len;
    long body_left, body_at;             /* bulk bytes (CRLF included) still to come, and seen */
};

static struct conn *conns;
static int epoll_fd, alive, in_window, stopping, busy_batches;
static uint64_t commands, errors, closed_early, next_fill, rng, gets_sent;
static char first_error[128], *filler, get_reply[32], *get_head, *set_head;
static int first_error_len, get_reply_len, get_head_len, set_head_len;
static char rx[READ_SIZE];

/* ---- time, randomness, histogram ------------------------------------------------------- */

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    return clock_gettime(id, &t) ? 0 : (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static uint64_t rnd(void)                /* xorshift64* */
{
    rng ^= rng >> 12, rng ^= rng << 25, rng ^= rng >> 27;
    return (rng * 2685821657736338717ull) >> 16;
}

static struct { uint32_t alias, below; } *draws;   /* below: share of 2^32 that keeps its own */

static void make_draws(void)
{
    size_t n = (size_t)opt.keys, small_n = 0, large_n = 0;
    double sum = 0, *weight = malloc(n * sizeof *weight);
    uint32_t *small = malloc(n * sizeof *small), *large = malloc(n * sizeof *large);
    draws = malloc(n * sizeof *draws);
    if (!draws || !weight || !small || !large) DIE("no memory for %ld keys", opt.keys);
    for (size_t i = 0; i < n; i++) sum += weight[i] = pow((double)(i + 1), -opt.zipf);
    for (size_t i = 0; i < n; i++) {     /* a weight of 1 fills its row exactly */
        weight[i] *= (double)n / sum;
        draws[i].alias = (uint32_t)i, draws[i].below = UINT32_MAX;
        if (weight[i] < 1) small[small_n++] = (uint32_t)i;
        else large[large_n++] = (uint32_t)i;
    }
    while (small_n && large_n) {         /* what a light key leaves of its row, a heavy one takes */
        uint32_t light = small[--small_n], heavy = large[large_n - 1];
        draws[light].alias = heavy;
        draws[light].below = (uint32_t)(weight[light] * (double)UINT32_MAX);
        weight[heavy] -= 1 - weight[light];
        if (weight[heavy] < 1) large_n--, small[small_n++] = heavy;
    }
    free(weight), free(small), free(large);
}

static uint64_t draw_key(void)
{
    if (!draws) return rnd() % (uint64_t)opt.keys;
    uint64_t row = ((rnd() & UINT32_MAX) * (uint64_t)opt.keys) >> 32;
    return (rnd() & UINT32_MAX) < draws[row].below ? row : draws[row].alias;
}

static uint64_t hist[58 * 128], hist_n, hist_max, hist_sum;

static void hist_add(uint64_t ns)
{
    int shift = ns < 256 ? 0 : 56 - __builtin_clzll(ns);
    hist[shift * 128 + (ns >> shift)]++;
    hist_n++, hist_sum += ns;
    if (ns > hist_max) hist_max = ns;
}

static double hist_us(double quantile)   /* microseconds at a quantile of 0..1 */
{
    uint64_t need = (uint64_t)(quantile * (double)hist_n), seen = 0;
    for (size_t i = 0; i < sizeof hist / sizeof *hist; i++) {
        seen += hist[i];
        if (!hist[i] || seen <= need) continue;
        int shift = i < 256 ? 0 : (int)(i / 128) - 1;
        double low = (double)((i - (size_t)shift * 128) << shift);
        double mid = low + (double)((1ull << shift) - 1) / 2;
        return (mid > (double)hist_max ? (double)hist_max : mid) / 1e3;
    }
    return (double)hist_max / 1e3;
}

/* ---- CPU time of other processes --------------------------------------------------------- */

static struct watched { char name[32]; pid_t pid; uint64_t start, spent; } watched[MAX_PIDS];
static int watched_n;
static const char *cpu_source = "clock";

static uint64_t schedstat_ns(pid_t pid)  /* all threads; 0 if the kernel has no schedstat */
{
    char path[320];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    uint64_t total = 0, one;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, e->d_name);
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%lu", &one) == 1) total += one;
        if (f) fclose(f);
    }
    if (dir) closedir(dir);
    return total;
}

static uint64_t stat_ns(pid_t pid)       /* user + system ticks of the whole process */
{
    char path[64], text[1024];
    unsigned long user = 0, sys = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                        &user, &sys) != 2) return 0;
    return (user + sys) * (1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t cpu_ns(pid_t pid)
{
    clockid_t id;
    uint64_t ns = clock_getcpuclockid(pid, &id) ? 0 : clock_ns(id);
    if (ns) return ns;
    if ((ns = schedstat_ns(pid))) return cpu_source = "schedstat", ns;
    return cpu_source = "stat", stat_ns(pid);
}

/* ---- TLS through dlopen ------------------------------------------------------------------- */

static struct {
    void *ctx;
    void *(*new_)(void *);
    int (*set_fd)(void *, int), (*connect)(void *), (*read)(void *, void *, int);
    int (*write)(void *, const void *, int), (*pending)(void *), (*error)(void *, int);
} tls;

static void *symbol(void *lib, const char *name)
{
    void *found = dlsym(lib, name);
    if (!found) DIE("no TLS load generator: %s is missing", name);
    return found;
}

static void tls_setup(void)
{
    const char *names[] = {"libssl.so.3", "libssl.so.1.1", "libssl.so"};
    void *lib = NULL;
    for (int i = 0; i < 3 && !lib; i++) lib = dlopen(names[i], RTLD_NOW);
    if (!lib) DIE("no TLS load generator: libssl is not installed");
    void *(*method)(void) = (void *(*)(void))symbol(lib, "TLS_client_method");
    void *(*ctx_new)(void *) = (void *(*)(void *))symbol(lib, "SSL_CTX_new");
    long (*ctrl)(void *, int, long, void *) =
        (long (*)(void *, int, long, void *))symbol(lib, "SSL_CTX_ctrl");
    *(void **)&tls.new_ = symbol(lib, "SSL_new");
    *(void **)&tls.set_fd = symbol(lib, "SSL_set_fd");
    *(void **)&tls.connect = symbol(lib, "SSL_connect");
    *(void **)&tls.read = symbol(lib, "SSL_read");
    *(void **)&tls.write = symbol(lib, "SSL_write");
    *(void **)&tls.pending = symbol(lib, "SSL_pending");
    *(void **)&tls.error = symbol(lib, "SSL_get_error");
    tls.ctx = ctx_new(method());
    ctrl(tls.ctx, 33, 1 | 2 | 16, NULL); /* SSL_CTRL_MODE: partial, moving, release buffers */
}

/* Read or write once: > 0 bytes, 0 nothing possible now, -1 the connection is gone. */
static long io(struct conn *c, void *data, size_t size, int writing)
{
    if (!c->ssl) {
        long n = writing ? send(c->fd, data, size, MSG_NOSIGNAL) : recv(c->fd, data, size, 0);
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return n > 0 ? n : 0;
        return -1;
    }
    int n = writing ? tls.write(c->ssl, data, (int)size) : tls.read(c->ssl, data, (int)size);
    if (n > 0) return n;
    int why = tls.error(c->ssl, n);      /* 2 and 3: wants to read, wants to write */
    return why == 2 || why == 3 ? 0 : -1;
}

/* ---- connections -------------------------------------------------------------------------- */

static void fail(struct conn *c, const char *text, int len, int fatal)
{
    errors++;
    for (int i = 0, old = first_error_len; !old && i < len && i < 100; i++)
        first_error[first_error_len++] = text[i] ? text[i] : '.';
    if (!fatal || c->dead) return;
    if (c->n) busy_batches--;
    c->dead = 1, closed_early++, alive--;
    close(c->fd);
}

static void flush_out(struct conn *c)
{
    while (c->iov_at < c->iov_n) {
        long n;
        if (!c->ssl && c->iov_n - c->iov_at > 1) {
            struct msghdr m = {.msg_iov = c->iov + c->iov_at,
                               .msg_iovlen = (size_t)(c->iov_n - c->iov_at)};
            n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
            if (n < 0) n = errno == EAGAIN || errno == EINTR ? 0 : -1;
        } else {
            n = io(c, c->iov[c->iov_at].iov_base, c->iov[c->iov_at].iov_len, 1);
        }
        if (n < 0) return fail(c, "connection lost while writing", 29, 1);
        if (n == 0) break;
        while (n > 0 && c->iov_at < c->iov_n) {
            struct iovec *v = c->iov + c->iov_at;
            long step = n < (long)v->iov_len ? n : (long)v->iov_len;
            v->iov_base = (char *)v->iov_base + step, v->iov_len -= (size_t)step, n -= step;
            if (!v->iov_len) c->iov_at++;
        }
    }
    int waits = c->iov_at < c->iov_n;
    if (waits == c->out_waits) return;
    c->out_waits = waits;
    struct epoll_event e = {.events = EPOLLIN | (waits ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

static void key_digits(char *at, uint64_t key)     /* the 12 digits after "key:" */
{
    for (int i = 11; i >= 0; i--, key /= 10) at[i] = (char)('0' + key % 10);
}

static void add_iov(struct conn *c, char *base, size_t len)
{
    c->iov[c->iov_n].iov_base = base;
    c->iov[c->iov_n++].iov_len = len;
}

static void start_batch(struct conn *c, int count)
{
    char *p = c->out, *piece = p;
    c->n = count, c->got = 0, c->iov_n = c->iov_at = 0;
    for (int i = 0; i < count; i++) {
        int set = opt.fill || (!c->touch && (int)(rnd() % 100) >= opt.get_percent);
        uint64_t key = opt.fill ? next_fill++ : draw_key();
        if (key >= (uint64_t)opt.keys) key = (uint64_t)opt.keys - 1;
        c->want[i] = (uint32_t)key << 1 | (uint32_t)set;
        gets_sent += !set;
        int head = set ? set_head_len : get_head_len;
        memcpy(p, set ? set_head : get_head, (size_t)head);
        key_digits(p + KEY_AT, key);
        p += head;
        if (!set) continue;
        long tag = opt.value < KEY ? opt.value : KEY;
        memcpy(p, "key:", (size_t)(tag < 4 ? tag : 4));
        if (tag == KEY) key_digits(p + 4, key);
        else memset(p, 'x', (size_t)tag);
        p += tag;
        if (opt.value > INLINE_VALUE) {  /* the rest of a large value is never copied */
            add_iov(c, piece, (size_t)(p - piece));
            add_iov(c, filler, (size_t)(opt.value - tag + 2));
            piece = p;
        } else {
            memcpy(p, filler, (size_t)(opt.value - tag));
            p += opt.value - tag;
            *p++ = '\r', *p++ = '\n';
        }
    }
    if (p > piece) add_iov(c, piece, (size_t)(p - piece));
    busy_batches++;
    c->sent_at = now_ns();
    flush_out(c);
}

static void reply_done(struct conn *c)
{
    commands += (uint64_t)in_window;
    c->got++;
}

static void batch_done(struct conn *c)   /* not before all that was read is looked at */
{
    busy_batches--;
    c->n = c->got = 0;
    if (c->touch) { c->touch = 0; return; }
    if (in_window) hist_add(now_ns() - c->sent_at);
    if (!stopping && !(opt.fill && next_fill >= (uint64_t)opt.keys)) start_batch(c, opt.pipeline);
}

/* A whole reply line (without CRLF): count what is wrong, prepare for a body. */
static void take_line(struct conn *c, const char *line, int len)
{
    int set = c->want[c->got] & 1;
    if (line[0] == '$' && !set && strtol(line + 1, NULL, 10) == opt.value) {
        c->body_left = opt.value + 2, c->body_at = 0;
        return;
    }
    int framed = len && line[0] && strchr("+-:$_", line[0]) && !(line[0] == '$' && line[1] != '-');
    if (!(set && len == 3 && !memcmp(line, "+OK", 3))) fail(c, line, len, !framed);
    if (!c->dead) reply_done(c);
}

static long take_body(struct conn *c, const char *data, long len)
{
    long step = len < c->body_left ? len : c->body_left;
    if (opt.value >= KEY && c->body_at < KEY) {
        char tag[KEY + 1] = "key:";
        key_digits(tag + 4, c->want[c->got] >> 1);
        long check = KEY - c->body_at < step ? KEY - c->body_at : step;
        if (memcmp(data, tag + c->body_at, (size_t)check)) fail(c, "value of another key", 20, 0);
    }
    c->body_at += step, c->body_left -= step;
    if (!c->body_left) reply_done(c);
    return step;
}

static void take(struct conn *c, const char *data, long len)
{
    long whole_get = get_reply_len + opt.value + 2;
    while (len > 0 && !c->dead) {
        if (c->got >= c->n) return fail(c, "a reply nobody asked for", 24, 1);
        long step;
        if (c->body_left) {
            step = take_body(c, data, len);
        } else if (!c->line_len && c->want[c->got] & 1 && len >= 5 && !memcmp(data, "+OK\r\n", 5)) {
            step = 5;
            reply_done(c);
        } else if (!c->line_len && !(c->want[c->got] & 1) && len >= whole_get
                   && !memcmp(data, get_reply, (size_t)get_reply_len)) {
            c->body_left = opt.value + 2, c->body_at = 0;
            step = get_reply_len + take_body(c, data + get_reply_len, opt.value + 2);
        } else {
            const char *end = memchr(data, '\n', (size_t)len);
            step = end ? end - data + 1 : len;
            if (c->line_len + step > (long)sizeof c->line) return fail(c, data, (int)step, 1);
            memcpy(c->line + c->line_len, data, (size_t)step);
            c->line_len += (int)step;
            if (end) {
                int n = c->line_len - (c->line_len > 1 ? 2 : 1);
                c->line_len = 0, c->line[n] = 0;
                take_line(c, c->line, n);
            }
        }
        data += step, len -= step;
    }
}

static void readable(struct conn *c)
{
    do {
        long n = io(c, rx, sizeof rx, 0);
        if (n < 0) return fail(c, "connection closed by the other side", 35, 1);
        if (n == 0) return;
        take(c, rx, n);
        if (!c->dead && c->n && c->got == c->n) batch_done(c);
    } while (!c->dead && c->ssl && tls.pending(c->ssl));
}

static void open_conn(struct conn *c, int touch)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    struct timeval limit = {.tv_sec = 15};
    int one = 1, is_unix = opt.unix_path != NULL;
    if (is_unix) snprintf(un.sun_path, sizeof un.sun_path, "%s", opt.unix_path);
    else if (inet_pton(AF_INET, opt.host, &in.sin_addr) != 1)
        DIE("not an IPv4 address: %s", opt.host);
    c->fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) DIE("socket: %s", strerror(errno));
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(c->fd, is_unix ? (void *)&un : (void *)&in, is_unix ? sizeof un : sizeof in))
        DIE("connect: %s", strerror(errno));
    if (!is_unix) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (opt.tls) {
        c->ssl = tls.new_(tls.ctx);
        tls.set_fd(c->ssl, c->fd);
        if (tls.connect(c->ssl) != 1) DIE("TLS handshake failed");
    }
    int small = opt.value > INLINE_VALUE ? KEY : (int)opt.value;
    c->want = calloc((size_t)opt.pipeline, sizeof *c->want);
    c->out = malloc((size_t)opt.pipeline * (size_t)(set_head_len + get_head_len + small + 2));
    c->iov = calloc((size_t)opt.pipeline * 2 + 1, sizeof *c->iov);
    alive++;
    if (touch) {                         /* still blocking here: one GET, then idle */
        c->touch = 1;
        start_batch(c, 1);
        for (uint64_t until = now_ns() + 15000000000u; c->touch && !c->dead && now_ns() < until;)
            readable(c);
        if (c->touch) DIE("the first command on a connection failed: %s", first_error);
    }
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e)) DIE("epoll_ctl: %s", strerror(errno));
}

/* ---- the run ------------------------------------------------------------------------------ */

static void poll_until(uint64_t until, int wait_for_batches)
{
    struct epoll_event events[512];
    for (;;) {
        uint64_t now = now_ns();
        if (now >= until || !alive || (wait_for_batches && busy_batches <= 0)) return;
        int ms = (int)((until - now + 999999) / 1000000);
        int n = epoll_wait(epoll_fd, events, 512, ms > 100 ? 100 : ms);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c->dead && events[i].events & EPOLLOUT) flush_out(c);
            if (!c->dead && events[i].events & ~(uint32_t)EPOLLOUT) readable(c);
        }
    }
}

static void print_text(const char *text)           /* as a JSON string, printable ASCII only */
{
    putchar('"');
    for (; *text; text++)
        putchar(*text < 32 || *text > 126 || *text == '"' || *text == '\\' ? '.' : *text);
    putchar('"');
}

static void report(double seconds, uint64_t own_cpu, int undrained)
{
    printf("{\"commands\": %lu, \"seconds\": %.6f, \"errors\": %lu, \"closed\": %lu, "
           "\"undrained\": %d, \"first_error\": ", commands, seconds, errors, closed_early,
           undrained);
    print_text(first_error);
    printf(", \"batches\": %lu, \"latency_us\": {\"mean\": %.3f, \"p50\": %.3f, \"p90\": %.3f, "
           "\"p99\": %.3f, \"p999\": %.3f, \"max\": %.3f}", hist_n,
           hist_n ? (double)hist_sum / (double)hist_n / 1e3 : 0.0, hist_us(.5), hist_us(.9),
           hist_us(.99), hist_us(.999), (double)hist_max / 1e3);
    printf(", \"cpu_source\": \"%s\", \"loadgen_cpu_us\": %.3f, \"cpu_us\": {", cpu_source,
           (double)own_cpu / 1e3);
    for (int i = 0; i < watched_n; i++)
        printf("%s\"%s\": %.3f", i ? ", " : "", watched[i].name, (double)watched[i].spent / 1e3);
    printf("}, \"gets_sent\": %lu}\n", gets_sent);
}

static void measure(void)
{
    for (int i = 0; i < opt.busy; i++)   /* busy ones are spread evenly among all */
        start_batch(conns + (long)i * opt.conns / opt.busy, opt.pipeline);
    if (!opt.fill) poll_until(now_ns() + (uint64_t)(opt.warmup * 1e9), 0);
    for (int i = 0; i < watched_n; i++) watched[i].start = cpu_ns(watched[i].pid);
    uint64_t own = clock_ns(CLOCK_PROCESS_CPUTIME_ID), start = now_ns();
    in_window = 1;
    poll_until(opt.fill ? UINT64_MAX : start + (uint64_t)(opt.seconds * 1e9), opt.fill);
    in_window = 0, stopping = 1;
    uint64_t end = now_ns();
    for (int i = 0; i < watched_n; i++)
        watched[i].spent = cpu_ns(watched[i].pid) - watched[i].start;
    own = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
    poll_until(now_ns() + 5000000000u, 1);          /* let the last batches finish */
    report((double)(end - start) / 1e9, own, busy_batches > 0 ? busy_batches : 0);
}

static void parse_pid(const char *text)
{
    struct watched *w = watched + watched_n;
    if (watched_n == MAX_PIDS || sscanf(text, "%31[a-z_]=%d", w->name, &w->pid) != 2)
        DIE("--pid wants name=PID, at most %d: %s", MAX_PIDS, text);
    watched_n++;
}

static void parse(int argc, char **argv)
{
    static const struct option names[] = {
        {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"unix", 1, 0, 'u'}, {"tls", 0, 0, 't'},
        {"conns", 1, 0, 'c'}, {"busy", 1, 0, 'b'}, {"pipeline", 1, 0, 'P'}, {"get", 1, 0, 'g'},
        {"value", 1, 0, 'v'}, {"keys", 1, 0, 'k'}, {"seconds", 1, 0, 's'}, {"warmup", 1, 0, 'w'},
        {"pid", 1, 0, 'i'}, {"fill", 0, 0, 'f'}, {"hold", 0, 0, 'H'}, {"seed", 1, 0, 'S'},
        {"zipf", 1, 0, 'z'}, {0}};
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (o) {
        case 'h': opt.host = optarg; break;
        case 'p': opt.port = atoi(optarg); break;
        case 'u': opt.unix_path = optarg; break;
        case 't': opt.tls = 1; break;
        case 'c': opt.conns = atoi(optarg); break;
        case 'b': opt.busy = atoi(optarg); break;
        case 'P': opt.pipeline = atoi(optarg); break;
        case 'g': opt.get_percent = atoi(optarg); break;
        case 'v': opt.value = atol(optarg); break;
        case 'k': opt.keys = atol(optarg); break;
        case 's': opt.seconds = atof(optarg); break;
        case 'w': opt.warmup = atof(optarg); break;
        case 'i': parse_pid(optarg); break;
        case 'f': opt.fill = 1; break;
        case 'H': opt.hold = 1; break;
        case 'S': opt.seed = strtoull(optarg, NULL, 10); break;
        case 'z': opt.zipf = atof(optarg); break;
        default: exit(2);
    }
    if (opt.busy < 0 || opt.busy > opt.conns) opt.busy = opt.conns;
    if (opt.conns < 1 || opt.pipeline < 1 || opt.pipeline > MAX_PIPELINE || opt.value < 1
        || opt.keys < 1 || opt.keys > 2000000000) DIE("an option is out of its range");
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (opt.tls) tls_setup();
    if (opt.zipf > 0) make_draws();
    rng = opt.seed * 0x9E3779B97F4A7C15ull | 1;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    filler = malloc((size_t)opt.value + 2);
    memset(filler, 'x', (size_t)opt.value);
    memcpy(filler + (opt.value > KEY ? opt.value - KEY : 0), "\r\n", 2);
    get_reply_len = snprintf(get_reply, sizeof get_reply, "$%ld\r\n", opt.value);
    get_head_len = asprintf(&get_head, "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n");
    set_head_len = asprintf(&set_head, "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n$%ld\r\n",
                            opt.value);
    conns = calloc((size_t)opt.conns, sizeof *conns);
    for (int i = 0; i < opt.conns; i++) open_conn(conns + i, opt.hold || opt.busy < opt.conns);
    if (!opt.hold) return measure(), 0;
    printf("ready\n");
    fflush(stdout);
    return getchar() != EOF;             /* until the harness closes our standard input */
}
