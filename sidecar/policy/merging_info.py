"""The texts of INFO of all shards become one: what a client, or a dashboard, reads of a server.

Counters and sizes add up. What is of one server (its version, its port, its part in replication) is
the first one's. Lines keep their order; lines that only others have (a database, a command that was
called there alone) come at the end of their section. Texts in, text out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Values = Sequence[bytes]
Fields = dict[bytes, list[bytes]]

# Fields that are not what their section has.
_GREATEST = {
    b"client_recent_max_input_buffer", b"client_recent_max_output_buffer",
    b"number_of_cached_scripts", b"number_of_functions", b"number_of_libraries",
    b"current_eviction_exceeded_time", b"current_active_defrag_time", b"active_defrag_running",
    b"loading", b"async_loading", b"rdb_bgsave_in_progress", b"aof_enabled",
    b"aof_rewrite_in_progress", b"aof_rewrite_scheduled", b"module_fork_in_progress",
    b"slot_migration_fork_in_progress", b"rdb_last_bgsave_time_sec", b"rdb_current_bgsave_time_sec",
    b"aof_last_rewrite_time_sec", b"aof_current_rewrite_time_sec", b"current_cow_size_age",
    b"instantaneous_eventloop_duration_usec", b"used_memory_peak_time",
}  # fmt: skip
_LEAST = {b"rdb_last_save_time"}
_FIRST = {b"maxclients", b"mem_allocator", b"paused_timeout_milliseconds"}


def merged_info(texts: Sequence[bytes]) -> bytes:
    """One text of several."""
    sections = [_sections(text) for text in texts]
    names = list(dict.fromkeys(name for each in sections for name in each))
    blocks = []
    for name in names:
        fields: Fields = {}
        for each in sections:
            for field, value in each.get(name, {}).items():
                fields.setdefault(field, []).append(value)
        how = _SECTIONS.get(name, _first_of)
        lines = [b"# " + name] if name else []
        lines += [
            b"%b:%b" % (field, how(field, values, fields)) for field, values in fields.items()
        ]
        blocks.append(b"\r\n".join(lines) + b"\r\n")
    return b"\r\n".join(blocks)


def as_standalone(text: bytes) -> bytes:
    """The text as a server writes it that is no node of a cluster."""
    kept = []
    for block in text.split(b"\r\n\r\n"):
        if block.startswith(b"# Cluster Info\r\n"):
            continue
        lines = [_ALONE.get(line, line) for line in block.split(b"\r\n")]
        kept.append(b"\r\n".join(lines))
    return b"\r\n\r\n".join(kept)


_ALONE = {
    b"cluster_enabled:1": b"cluster_enabled:0",
    b"redis_mode:cluster": b"redis_mode:standalone",
    b"server_mode:cluster": b"server_mode:standalone",
}


def _sections(text: bytes) -> dict[bytes, dict[bytes, bytes]]:
    found: dict[bytes, dict[bytes, bytes]] = {}
    fields: dict[bytes, bytes] = {}
    for line in text.split(b"\r\n"):
        if line.startswith(b"# "):
            fields = found.setdefault(line[2:], {})
        elif line:
            if not found:
                found[b""] = fields
            field, _, value = line.partition(b":")
            fields[field] = value
    return found


# One field: its name, its values, all fields of its section.


def _first_of(field: bytes, values: Values, fields: Fields) -> bytes:
    return values[0]


def _added(field: bytes, values: Values, fields: Fields) -> bytes:
    """What most fields of counters and sizes are."""
    if field in _FIRST:
        return values[0]
    if field.endswith(b"_human") and (whole := fields.get(field.removesuffix(b"_human"))):
        return human(_total(whole))
    numbers = _numbers(values)
    if numbers is None:
        return _not_well(values)
    if field in _GREATEST:
        return _written(max(numbers), values)
    if field in _LEAST:
        return _written(min(numbers), values)
    if field.endswith((b"_ratio", b"_perc")):
        return _written(sum(numbers) / len(numbers), values)
    return _written(sum(numbers), values)


def _not_well(values: Values) -> bytes:
    """Words: the first that is not what it should be (ok)."""
    return next((value for value in values if value not in (b"ok", b"none")), values[0])


def _numbers(values: Values) -> list[float] | None:
    try:
        return [float(value.rstrip(b"%")) for value in values]
    except ValueError:
        return None


def _total(values: Values) -> int:
    return sum(int(value) for value in values)


def _written(value: float, values: Values) -> bytes:
    """With as many digits behind the point as they had, and a percent sign if they had one."""
    text = values[0].rstrip(b"%")
    digits = len(text.partition(b".")[2])
    if not digits and all(b"." not in each for each in values):
        return b"%d" % value
    return b"%.*f" % (digits, value) + values[0][len(text) :]


def human(value: int) -> bytes:
    """A size as servers write it for people."""
    if value < 1024:
        return b"%dB" % value
    power = min((value.bit_length() - 1) // 10, 5)
    return b"%.2f%b" % (value / 1024**power, b"KMGTP"[power - 1 : power])


def _listed(value: bytes) -> dict[bytes, bytes]:
    """`calls=1,usec=2`."""
    cut = [part.partition(b"=") for part in value.split(b",")]
    return {name: number for name, _, number in cut}


def _parts(values: Values) -> Fields:
    found: Fields = {}
    for value in values:
        for name, part in _listed(value).items():
            found.setdefault(name, []).append(part)
    return found


def _rewritten(totals: dict[bytes, bytes]) -> bytes:
    return b",".join(b"%b=%b" % pair for pair in totals.items())


def _keyspace(field: bytes, values: Values, fields: Fields) -> bytes:
    """Keys and those that expire add up; the mean lifetime is that of those that expire."""
    parts = _parts(values)
    totals = {name: b"%d" % _total(numbers) for name, numbers in parts.items()}
    rows = [_listed(value) for value in values]
    expiring = sum(int(row.get(b"expires", b"0")) for row in rows)
    if b"avg_ttl" in totals:
        whole = sum(int(r.get(b"avg_ttl", b"0")) * int(r.get(b"expires", b"0")) for r in rows)
        totals[b"avg_ttl"] = b"%d" % (whole // expiring if expiring else 0)
    return _rewritten(totals)


def _commandstats(field: bytes, values: Values, fields: Fields) -> bytes:
    parts = _parts(values)
    totals = {n: b"%d" % _total(p) for n, p in parts.items() if n != b"usec_per_call"}
    found = {}
    for name in parts:
        found[name] = totals.get(name, b"")
    if b"usec_per_call" in parts:
        calls = int(totals.get(b"calls", b"0"))
        each = int(totals.get(b"usec", b"0")) / calls if calls else 0.0
        found[b"usec_per_call"] = b"%.2f" % each
    return _rewritten(found)


def _counts(field: bytes, values: Values, fields: Fields) -> bytes:
    return _rewritten({n: b"%d" % _total(p) for n, p in _parts(values).items()})


def _slowest(field: bytes, values: Values, fields: Fields) -> bytes:
    """Percentiles cannot be put together; the greatest is what is certain to be enough."""
    return _rewritten({n: max(p, key=float) for n, p in _parts(values).items()})


_SECTIONS: dict[bytes, Callable[[bytes, Values, Fields], bytes]] = {
    b"Clients": _added,
    b"Memory": _added,
    b"Persistence": _added,
    b"Stats": _added,
    b"CPU": _added,
    b"Commandstats": _commandstats,
    b"Errorstats": _counts,
    b"Latencystats": _slowest,
    b"Keysizes": _counts,
    b"Keyspace": _keyspace,
}
