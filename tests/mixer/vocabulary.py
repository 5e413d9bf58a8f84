"""What random programs say, as text: `@` is some key, `%` some name, `#` some number, and a number
in front (`6*`) makes a line that much likelier. `program` fills them in."""

from __future__ import annotations

from .forms import names


def _lines(text: str) -> list[list[bytes]]:
    found = []
    for line in filter(None, map(str.strip, text.replace("|", "\n").splitlines())):
        head, star, rest = line.partition("*")
        times = int(head) if star and head.isdigit() else 1
        words = (rest if star and head.isdigit() else line).strip()
        found += [[word.encode() for word in words.split()]] * times
    return found


KEYS = [b"k%d" % i for i in range(9)] + [b"STREAMS", b"block", b"", b"\x00\r\n\xff"]
NAMES = [b"f", b"g", b"G", b"C", b"STREAMS", b"BLOCK", b"limit", b"chan", b"1"]
CHANNELS = [b"chan", b"news", b"k1"]

UNFIT = names(
    # What ends or changes the server, or shows it; what depends on its clock or its hash seed; and
    # what has steps of its own.
    "shutdown monitor sync psync replconf debug failover replicaof slaveof migrate save bgsave "
    "bgrewriteaof flushall swapdb info lastsave time lolwut slowlog commandlog latency memory acl "
    "config module cluster command role client hello auth select quit reset multi exec discard "
    "watch unwatch subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe publish "
    "spublish pubsub eval evalsha eval_ro evalsha_ro fcall fcall_ro function script wait waitaof "
    "readonly readwrite asking spop dbsize clusterscan pfselftest pfdebug restore restore-asking "
    "dump vadd vrem vsetattr vsim vlinks vemb vinfo blpop brpop blmove brpoplpush blmpop bzpopmin "
    "bzpopmax bzmpop xread xreadgroup object flushdb"
)
UNFIT_SUBCOMMANDS = frozenset(["xinfo consumers", "xinfo stream", "xpending", "xautoclaim"])

COMMON = _lines("""
    6* GET @ | MGET @ @ @ | HGET @ f | HMGET @ f g | EXISTS @ | LRANGE @ 0 -1 | TYPE @ | STRLEN @
    ZSCORE @ a | LLEN @ | 3* SET @ v# | INCR @ | APPEND @ x | HSET @ f # | RPUSH @ e | LPOP @
    GETRANGE @ 0 1 | SETRANGE @ 1 y
""")
"""The everyday commands."""

MAKING = _lines("""
    SET @ v0 | SET @ 1 | RPUSH @ a b c | HSET @ f 1 g w | SADD @ a b | ZADD @ 1 a 2 b | SADD @ 1 2
    XADD @ 1-1 f v | XGROUP CREATE @ G 0 MKSTREAM | PFADD @ a | XGROUP CREATE @ % $ MKSTREAM
""")
"""What gives a key some value."""

READS = _lines("""
    6* GET @ | STRLEN @ | GETRANGE @ 0 3 | EXISTS @ | TYPE @ | HGET @ f | HMGET @ f g | HGETALL @
    HLEN @ | SMEMBERS @ | SISMEMBER @ a | SCARD @ | ZSCORE @ a | ZRANGE @ 0 -1 WITHSCORES | ZCARD @
    LRANGE @ 0 -1 | LLEN @ | LINDEX @ 0 | XLEN @ | XRANGE @ - + | MGET @ @ @ | BITCOUNT @
    GETBIT @ 1 | ZRANK @ b | HKEYS @ | get @ | GET @ extra
""")
"""Reads whose replies may be cached."""

EVENTS = _lines("""
    4* SET @ new# | 2* DEL @ | RENAME @ @ | COPY @ @ REPLACE | COPY @ @ DB 9 REPLACE | MOVE @ 9
    SWAPDB 0 9 | SORT @ STORE @ | EXPIRE @ -1 | SET @ keep KEEPTTL | UNLINK @ @ | MSET @ 1 @ 2
    SUNIONSTORE @ @ | GETDEL @ | GETEX @ PXAT 1 | LMOVE @ @ LEFT LEFT | BITOP NOT @ @ | PFMERGE @ @
    FLUSHDB | FLUSHDB ASYNC | ZUNIONSTORE @ 1 @ | GEOSEARCHSTORE @ @ FROMLONLAT 1 1 BYRADIUS 1 km
    XADD @ #-1 f v | APPEND @ z | HSET @ f # | LPUSH @ l | OBJECT NONSENSE @ | GET | MGET | TOUCH @
    LPOP @ | SINTERSTORE @ @ @ | INCRBYFLOAT @ 1.5 | BITFIELD @ SET u8 0 # | LPUSHX @ q
    RPOPLPUSH @ @
""")
"""What may change what has been read."""

BLOCKING = _lines("""
    BLPOP @ WAIT | BRPOP @ @ WAIT | BZPOPMIN @ WAIT | BLMOVE @ @ LEFT RIGHT WAIT
    BRPOPLPUSH @ @ WAIT | BLMPOP WAIT 2 @ @ LEFT COUNT 2 | BZMPOP WAIT 1 @ MAX
    XREAD BLOCK MS STREAMS @ $ | 2* XREADGROUP GROUP % % BLOCK MS STREAMS @ >
    XREAD COUNT 1 STREAMS @ 0 | XREADGROUP GROUP G % STREAMS @ >
    XREADGROUP GROUP % BLOCK STREAMS @ >
""")
"""WAIT and MS stand for how long."""

WAKING = _lines("""
    LPUSH KEY x y | ZADD KEY 1 m | DEL KEY | RPUSH KEY z | XADD KEY #-1 f v | RENAME @ KEY
    CLIENT UNBLOCK ID | CLIENT UNBLOCK ID ERROR | CLIENT KILL ID ID
""")
"""KEY and ID: what a client that is blocked waits for, and which client that is."""

IN_MULTI = _lines("""
    MULTI | WATCH @ | nonsense | GET | UNWATCH | EXEC x | DISCARD x | BLPOP @ 0 | PUBLISH chan m
    RESET x | CLIENT SETNAME inside | SELECT 9 | ECHO x | FLUSHDB | SUBSCRIBE chan | MULTI x
    CLIENT ID | CLIENT ID | CLIENT GETNAME | CLIENT GETREDIR | CLIENT TRACKINGINFO
""")
PUBSUB = _lines("""
    SUBSCRIBE chan | SUBSCRIBE chan news | SUBSCRIBE k1 | PSUBSCRIBE n* | UNSUBSCRIBE
    UNSUBSCRIBE chan | PUNSUBSCRIBE | SSUBSCRIBE news | SUNSUBSCRIBE news | 3* PUBLISH chan m#
    3* PUBLISH news m# | SPUBLISH news shard | PUBSUB NUMSUB chan news
    PUBSUB NUMPAT | PING | PING x
""")
TIMED = _lines("""
    TTL @ | PTTL @ | EXPIRE @ 1000 | PERSIST @ | SET @ v EX 1000 | EXPIRETIME @ | EXPIRE @ -1
    GETEX @ EX 1000 | OBJECT ENCODING @
""")
"""What tells of time, alone."""

RIGHTS = _lines("""
    -get | +get | -client|id | -select | +@all | -discard | -unwatch | -@write | +@write | resetkeys
    ~* | ~k1 | -hget | -client | >other | -ping | -exec | -publish | resetchannels | &*
    -reset | -multi
""".replace("client|id", "client!id"))  # fmt: skip
SESSION: list[list[list[bytes]]] = [
    [line.split() for line in lines.split(b";")]
    for lines in (
        b"SELECT 9", b"SELECT 0", b"SELECT 99", b"HELLO 4", b"HELLO 2", b"HELLO 3", b"RESET",
        b"AUTH bob secret", b"AUTH bob wrong", b"AUTH default x", b"ACL WHOAMI",
        b"PING;SELECT 9;GET k1;SELECT 0;GET k1", b"QUIT;SET k1 after",
    )
]  # fmt: skip
INLINE = [
    b"GET k1\r\n", b"SET k2 'a b'\r\n", b'GET "k\\x31"\n', b"\r\nPING\r\n", b"get\r\n",
    b"MULTI\r\nGET k1\r\nEXEC\r\n", b"INCR k3\nINCR k3\n", b"nonsense a b\r\n",
]  # fmt: skip
BROKEN = [
    b"*x\r\n", b"*1\r\n$x\r\n", b'GET "unbalanced\r\n', b"*1\r\n!4\r\nPING\r\n", b"*1\r\n$-5\r\n",
    b"*99999999999\r\n", b"POST / HTTP/1.1\r\n",
]  # fmt: skip

SCRIPTS: list[tuple[bytes, int]] = [
    (b"return redis.call('get',KEYS[1])", 1),
    (b"return redis.call('set',KEYS[1],ARGV[1])", 1),
    (b"return redis.call('del',KEYS[1])", 1),
    (b"return redis.call('incr',KEYS[1])", 1),
    (b"return redis.call('lpush',KEYS[1],ARGV[1])", 1),
    (b"redis.call('set',KEYS[1],'a') return redis.call('get',KEYS[2])", 2),
    (b"return {KEYS[1],ARGV[1],1,{2}}", 1),
    (b"return redis.error_reply('MY error')", 0),
    (b"return redis.call('set',ARGV[1],'undeclared')", 0),
    (b"return redis.call('set',ARGV[1],'undeclared')", 1),
    (b"return redis.pcall('lpush',ARGV[1],'x')", 1),
    (b"return redis.call('publish','chan',ARGV[1])", 0),
    (b"redis.call('set',KEYS[1],'z') return redis.call('nonsense')", 1),
]
FUNCTIONS = [(b"fset", 1), (b"fget", 1), (b"fother", 1), (b"none", 1), (b"fset", 0)]
