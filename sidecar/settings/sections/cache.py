"""Settings of what is kept about keys: hot keys, near cache, warm start."""

from typing import Annotated, Literal

from sidecar.settings.fields import LIVE, KiB, MiB, Section, restart, seconds, setting, size


class HotKeys(Section, frozen=True):
    """Hot-key detection: a sampled count-min sketch with a table of the most frequent keys."""

    enabled: Annotated[
        bool,
        setting(
            "Detect hot keys; cache.mode = hot needs it.",
            reload=restart("the near cache is built on the detector at the start"),
        ),
    ] = True
    hot_share: Annotated[
        float,
        setting("A key becomes hot at this share of the traffic.", ge=0.00001, le=1.0, reload=LIVE),
    ] = 0.001
    cool_share: Annotated[
        float, setting("A hot key cools below this share.", ge=0.00001, le=1.0, reload=LIVE)
    ] = 0.0005
    window: Annotated[
        float, seconds("Counts are halved this often.", ge=0.1, le=3600, reload=LIVE)
    ] = 1.0
    samples_per_second: Annotated[
        int,
        setting(
            "Commands counted each second; above this rate, one in N is counted.",
            ge=100,
            le=10_000_000,
            reload=LIVE,
        ),
    ] = 50_000
    width: Annotated[
        int,
        setting(
            "Counters in each row of the sketch (a power of two). With probability e⁻⁴ the share "
            "of a key is overestimated by more than 2.7 / width.",
            ge=256,
            le=65536,
            reload=restart("the size of the table of counters is fixed at the start"),
        ),
    ] = 8192
    top: Annotated[
        int,
        setting(
            "Keys that are ranked.",
            ge=10,
            le=4096,
            reload=restart("the size of the table of ranked keys is fixed at the start"),
        ),
    ] = 512
    log: Annotated[
        float,
        setting(
            "The log names keys with at least this share of the traffic and 100 commands a second; "
            "0: none, because names of keys are data.",
            ge=0,
            le=1,
            reload=LIVE,
        ),
    ] = 0.0
    metrics: Annotated[
        int,
        setting(
            "How many of the hottest keys /metrics names, with share and rate. Each key that was "
            "ever among them is a series in Prometheus.",
            ge=0,
            le=100,
            reload=LIVE,
        ),
    ] = 0


class Cache(Section, frozen=True):
    """The near cache: replies to reads, kept in this process and invalidated by the server."""

    mode: Annotated[
        Literal["off", "observe", "hot", "rules"],
        setting(
            "hot: cache hot keys. rules: cache keys that cache.rules names. observe: cache nothing "
            "and only count what hot would have served. off: no cache.",
            reload=restart("the near cache is built into the data path, or is not, at the start"),
        ),
    ] = "hot"
    memory: Annotated[
        int, size("Memory for cached replies.", ge=MiB, reload=LIVE, divided=True)
    ] = 64 * MiB
    max_staleness: Annotated[
        float,
        seconds(
            "After a write through another connection, a cached reply may be served for at most "
            "this long. While the sidecar cannot prove that invalidations arrive, the cache is "
            "not used.",
            ge=0.01,
            reload=LIVE,
        ),
    ] = 0.5
    max_ttl: Annotated[
        float, seconds("An entry is read again after this long.", ge=0.001, reload=LIVE)
    ] = 60.0
    negative_ttl: Annotated[
        float,
        seconds(
            "The same for keys that do not exist; 0: missing keys are not cached.", reload=LIVE
        ),
    ] = 5.0
    max_value: Annotated[int, size("Longer replies are not cached.", reload=LIVE)] = 64 * KiB
    rules: Annotated[
        tuple[str, ...],
        setting(
            "Key prefixes with their options; the first prefix that matches counts: "
            '"session: max_ttl=5m max_staleness=50ms", "secret: never", "*" for every key. A rule '
            "can shorten cache.max_ttl and cache.max_staleness, not extend them.",
            reload=LIVE,
        ),
    ] = ()
    check: Annotated[
        float,
        setting(
            "Share of replies from the cache that are compared with the server's reply.",
            ge=0,
            le=1,
            reload=LIVE,
        ),
    ] = 0.0001


class Warm(Section, frozen=True):
    """Warm start: what the near cache is filled with when the sidecar starts."""

    snapshot: Annotated[
        str,
        setting(
            "File with the names (never the values) of the cached keys, saved for the next start; "
            "empty is off.",
            reload=restart("names are loaded from it at the start, and kept for the next one"),
        ),
    ] = ""
    fleet: Annotated[
        bool,
        setting(
            "Share those names with other sidecars, in a key on the server.",
            reload=restart("names are loaded from there at the start, and kept for the next one"),
        ),
    ] = False
    fleet_key: Annotated[
        str,
        setting(
            "That key, a sorted set; use a different one for each application.",
            reload=restart("names are loaded from there at the start, and kept for the next one"),
        ),
    ] = "__redis-sidecar__:warm"
    interval: Annotated[
        float, seconds("How often names are saved and shared.", ge=0.1, le=86400, reload=LIVE)
    ] = 60.0
    key_file: Annotated[
        str,
        setting(
            'File with further keys: each line is a key, or a read such as "HGET key field"; '
            '"SELECT 2" sets the database of the lines after it.',
            reload=restart("names are loaded at the start only"),
        ),
    ] = ""
    scan: Annotated[
        str,
        setting(
            "Pattern of further keys, found with SCAN; empty is off.",
            reload=restart("names are loaded at the start only"),
        ),
    ] = ""
    scan_count: Annotated[
        int,
        setting(
            "Most keys that SCAN looks at.",
            ge=1,
            le=1_000_000_000,
            reload=restart("names are loaded at the start only"),
        ),
    ] = 50_000
    keys: Annotated[
        int,
        setting(
            "Most entries that are saved, shared and loaded.",
            ge=1,
            le=1_000_000,
            reload=restart("names are loaded at the start only"),
        ),
    ] = 10_000
    concurrency: Annotated[
        int,
        setting(
            "Reads in flight at once while loading.",
            ge=1,
            le=10_000,
            reload=restart("names are loaded at the start only"),
            divided=True,
        ),
    ] = 128
    rate: Annotated[
        float,
        setting(
            "Most reads started each second while loading; 0 is no limit.",
            ge=0,
            reload=restart("names are loaded at the start only"),
            divided=True,
        ),
    ] = 0.0
    deadline: Annotated[
        float,
        seconds(
            "/readyz waits at most this long for the warm start; loading continues after that.",
            le=3600,
            reload=restart("names are loaded at the start only"),
        ),
    ] = 5.0
    hold: Annotated[
        float,
        seconds(
            "With cache.mode = hot, loaded keys stay cached for this long even if not hot.",
            ge=0.1,
            reload=restart("names are loaded at the start only"),
        ),
    ] = 60.0
