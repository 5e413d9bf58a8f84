"""Makes one snapshot of those of several workers. Pure: structs in, structs out.

Each figure says how that is done, where it is declared (snapshots.py). The words:

    added    counters: the sum, also of processes that have ended
    common   counters of what happens to every worker (a switch of the master): the greatest
    sum      gauges: the sum over the workers that are there
    most, least, all, same, worst, newest

A worker that was started again counts from 0. What its predecessors had counted is kept as one
snapshot (`kept`), and added; so no counter ever goes down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from operator import attrgetter
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from sidecar.policy.breaker import State
from sidecar.policy.warmup import Phase
from sidecar.telemetry.snapshots import Exemplar, Snapshot, Unanswered, waiting

T = TypeVar("T", bound=msgspec.Struct)
Pair = tuple[Any, Any]
"""What a worker says now (None: it says nothing), and what is kept of its predecessors (None:
nothing)."""

_DUE = ("ok", "late", "overdue")
# The worst last.
_ORDER: Mapping[object, int] = {
    **{state: i for i, state in enumerate((State.CLOSED, State.HALF_OPEN, State.OPEN))},
    **{phase: i for i, phase in enumerate((Phase.DONE, Phase.LOADING, Phase.GATHERING))},
}


def combined(pairs: Sequence[tuple[Snapshot | None, Snapshot | None]]) -> Snapshot:
    """The snapshot of the whole: for each worker what it says now, and what is kept of the
    processes before it."""
    whole: Snapshot | None = _struct(Snapshot, pairs)
    return whole if whole is not None else Snapshot()


def kept(ended: Snapshot | None, before: Snapshot | None) -> Snapshot | None:
    """What is to be kept of a process that has ended, and of those before it."""
    if ended is None or before is None:
        return ended or before
    both: Snapshot = _filled(_struct(Snapshot, [(ended, before)]), before)
    return both


def _filled(part: Any, before: Any) -> Any:
    """With what was kept before of parts that the process that ended did not have."""
    if part is None or not isinstance(before, msgspec.Struct):
        return before if part is None else part
    names = part.__struct_fields__
    return type(part)(**{n: _filled(getattr(part, n), getattr(before, n)) for n in names})


def _struct(kind: type[T], pairs: Sequence[Pair]) -> T | None:
    """None where no worker has this part."""
    if all(now is None for now, _ in pairs):
        return None
    values = {}
    for name, (how, type_) in fields_of(kind).items():
        mine = [(_get(now, name), _get(before, name)) for now, before in pairs]
        values[name] = _value(how, type_, mine)
    return kind(**values)


def _value(how: str, type_: Any, pairs: Sequence[Pair]) -> Any:
    if how in ("added", "common"):
        sums = [_add(pair) for pair in pairs]
        return _add(sums) if how == "added" else max(each or 0 for each in sums)
    if how:
        here = [now for now, _ in pairs if now is not None]
        return _GAUGES[how](here) if here else None
    if get_origin(type_) is not None:  # structs by label
        inner = get_args(type_)[1]
        labels = dict.fromkeys(label for pair in pairs for each in pair for label in each or ())
        return {
            label: _counted(inner, [(_at(now, label), _at(old, label)) for now, old in pairs])
            for label in labels
        }
    return _struct(type_, pairs)


def _counted(kind: type[T], pairs: Sequence[Pair]) -> T | None:
    """Of structs that have only counters: what is kept counts where nobody has one now."""
    if all(now is None for now, _ in pairs):
        pairs = [(before, None) for _, before in pairs]
    return _struct(kind, pairs)


def _get(part: Any, name: str) -> Any:
    return None if part is None else getattr(part, name)


def _at(labelled: Mapping[str, Any] | None, label: str) -> Any:
    return None if labelled is None else labelled.get(label)


def _add(values: Iterable[Any]) -> Any:
    """The sum of numbers, of sequences (by place) or of mappings (by label)."""
    found = [each for each in values if each is not None]
    if not found:
        return None
    if isinstance(found[0], Mapping):
        total: dict[Any, Any] = {}
        for each in found:
            for label, value in each.items():
                total[label] = total.get(label, 0) + value
        return total
    if isinstance(found[0], Sequence):
        return [sum(column) for column in zip_longest(*found, fillvalue=0)]
    return sum(found)


def _chosen(choose: Callable[[Any, Any], Any]) -> Callable[[Sequence[Any]], Any]:
    """One of the values, or by label one of each."""

    def of(values: Sequence[Any]) -> Any:
        if not isinstance(values[0], Mapping):
            chosen = values[0]
            for each in values[1:]:
                chosen = choose(chosen, each)
            return chosen
        found: dict[Any, Any] = {}
        for each in values:
            for label, value in each.items():
                found[label] = choose(found[label], value) if label in found else value
        return found

    return of


def _worst(values: Sequence[Any]) -> Any:
    if not isinstance(values[0], Unanswered):
        return max(values, key=_ORDER.__getitem__)
    worst = max(values, key=lambda each: (_DUE.index(each.state), each.silent, each.oldest))
    requests = sum(each.requests for each in values)
    oldest = max(each.oldest for each in values)
    why = worst.why.removesuffix(waiting(worst.requests))
    if why != worst.why:
        why += waiting(requests)
    return msgspec.structs.replace(worst, requests=requests, oldest=oldest, why=why)


def _newest(values: Sequence[Mapping[str, Mapping[int, Exemplar]]]) -> Any:
    labels = dict.fromkeys(label for each in values for label in each)
    newest = _chosen(lambda one, other: max(one, other, key=attrgetter("time")))
    return {label: newest([each[label] for each in values if label in each]) for label in labels}


_GAUGES: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    "sum": _add,
    "most": _chosen(max),
    "least": _chosen(min),
    "all": all,
    "same": lambda values: values[0],
    "worst": _worst,
    "newest": _newest,
}

_KNOWN: dict[type, dict[str, tuple[str, Any]]] = {}


def fields_of(kind: type) -> Mapping[str, tuple[str, Any]]:
    """By name, how each field is combined ("" where it is a struct, or structs by label) and its
    type without None."""
    if kind not in _KNOWN:
        _KNOWN[kind] = {
            name: _declared(hint)
            for name, hint in get_type_hints(kind, include_extras=True).items()
            if not name.startswith("_")
        }
    return _KNOWN[kind]


def _declared(hint: Any) -> tuple[str, Any]:
    how = ""
    if get_origin(hint) is Annotated:
        hint, meta = get_args(hint)[:2]
        how = meta.extra["over workers"]
    if get_origin(hint) not in (Mapping, Sequence, dict) and type(None) in get_args(hint):
        hint = next(each for each in get_args(hint) if each is not type(None))
    return how, hint
