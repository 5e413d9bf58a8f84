"""What the drills conclude from a history: every loss, repetition, stale read and pause is seen,
and nothing is seen where nothing is."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from bench.drills import targets
from bench.drills.catalogue import DRILLS, choose
from bench.drills.figures import Figures, Recording, measure, timeline
from bench.drills.kinds import kind_of
from bench.drills.raw import Raw
from bench.drills.runner import LaneResult, Run
from bench.drills.spec import Connect, Crowd, Spec
from bench.drills.switches import (
    Announced,
    Mark,
    Role,
    Said,
    Switch,
    announcements,
    shown,
    switches,
)
from bench.drills.world import Options
from tests.harness.checker import outcomes
from tests.harness.checker.records import GARBLED, MISSING, SHARED_COUNTER, Record, decode, encode
from tests.harness.errors import Unavailable

SURE = outcomes.NOT_EXECUTED


def _set(key: str, number: int, at: float = 1.0, error: str = "", took: float = 0.001) -> Record:
    return Record(0, "set", key, number, at, at + took, error, number)


def _get(key: str, value: int, at: float = 1.0, error: str = "") -> Record:
    return Record(0, "get", key, 0, at, at + 0.001, error, value)


def _incr(value: int, error: str = "", key: str = "count:0", client: int = 0) -> Record:
    return Record(client, "incr", key, 0, 1.0, 1.001, error, value)


def _ok(client: int, answered: float, took: float = 0.001) -> Record:
    return Record(client, "get", "k", 0, answered - took, answered, "", MISSING)


# -- losses --------------------------------------------------------------------------------------


def test_an_acknowledged_set_that_is_missing_is_lost() -> None:
    history = [_set("a", 0), _set("b", 1), _set("c", 2, error="UNCERTAIN")]
    assert outcomes.lost_sets(history, {"a": 0, "b": 1}) == []
    assert outcomes.lost_sets(history, {"a": 0}) == [history[1]]


def test_a_later_set_of_the_key_makes_up_for_an_earlier_one() -> None:
    history = [_set("a", 0), _set("a", 1)]
    assert outcomes.lost_sets(history, {"a": 1}) == []
    assert outcomes.lost_sets(history, {"a": 0}) == [history[1]]
    assert outcomes.lost_sets(history, {"a": GARBLED}) == history


def test_a_refused_set_must_not_be_there() -> None:
    history = [_set("a", 0, error="UNAVAILABLE"), _set("b", 0, error="UNCERTAIN")]
    assert outcomes.refused_yet_applied(history, {"b": 0}, SURE) == 0
    assert outcomes.refused_yet_applied(history, {"a": 0, "b": 0}, SURE) == 1


# -- counters ------------------------------------------------------------------------------------


def test_counters_that_add_up() -> None:
    history = [_incr(1), _incr(2), _incr(0, "UNCERTAIN"), _incr(4), _incr(0, "READONLY"), _incr(5)]
    assert outcomes.counters(history, {"count:0": 5}, SURE) == outcomes.Twice(0, 0)
    uncertain_did_not_happen = [_incr(1), _incr(0, "UNCERTAIN"), _incr(2)]
    assert outcomes.counters(uncertain_did_not_happen, {"count:0": 2}, SURE) == outcomes.Twice(0, 0)


@pytest.mark.parametrize(
    ("history", "final", "twice"),
    [
        ([_incr(1), _incr(3)], 3, 1),
        ([_incr(1), _incr(0, "UNCERTAIN"), _incr(4)], 4, 1),
        ([_incr(1), _incr(0, "READONLY"), _incr(3)], 3, 1),
        ([_incr(1)], 2, 1),
        ([_incr(1), _incr(0, "UNCERTAIN")], 3, 1),
        ([_incr(2)], 2, 1),
        ([_incr(1), _incr(0, "UNCERTAIN"), _incr(2), _incr(4)], 4, 1),
    ],
    ids=[
        "in between",
        "uncertain",
        "refused",
        "at the end",
        "uncertain end",
        "at the start",
        "later",
    ],
)
def test_an_increment_executed_twice(history: list[Record], final: int, twice: int) -> None:
    assert outcomes.counters(history, {"count:0": final}, SURE) == outcomes.Twice(twice, 0)


@pytest.mark.parametrize(
    ("history", "final", "lost"),
    [
        ([_incr(1), _incr(2), _incr(2)], 2, 1),
        ([_incr(5 - 4), _incr(2), _incr(3), _incr(1)], 1, 3),
        ([_incr(1), _incr(2)], 1, 1),
        ([_incr(1)], MISSING, 1),
    ],
    ids=["given twice", "went back", "missing at the end", "no key at all"],
)
def test_an_acknowledged_increment_is_lost(history: list[Record], final: int, lost: int) -> None:
    assert outcomes.counters(history, {"count:0": final}, SURE) == outcomes.Twice(0, lost)


def test_a_loss_does_not_hide_a_repetition() -> None:
    history = [_incr(1), _incr(2), _incr(1), _incr(3)]
    assert outcomes.counters(history, {"count:0": 3}, SURE) == outcomes.Twice(1, 2)


def test_the_shared_counter() -> None:
    def mine(client: int, value: int, error: str = "") -> Record:
        return _incr(value, error, SHARED_COUNTER, client)

    fine = [mine(0, 1), mine(1, 2), mine(0, 3), mine(1, 0, "UNCERTAIN")]
    assert outcomes.counters(fine, {SHARED_COUNTER: 3}, SURE) == outcomes.Twice(0, 0)
    assert outcomes.counters(fine, {SHARED_COUNTER: 4}, SURE) == outcomes.Twice(0, 0)
    assert outcomes.counters(fine, {SHARED_COUNTER: 5}, SURE) == outcomes.Twice(1, 0)
    assert outcomes.counters(fine, {SHARED_COUNTER: 2}, SURE) == outcomes.Twice(0, 1)
    both = [mine(0, 1), mine(1, 1)]
    assert outcomes.counters(both, {SHARED_COUNTER: 2}, SURE) == outcomes.Twice(0, 1)


def test_errors_of_a_client_that_retries_promise_nothing() -> None:
    history = [_incr(1), _incr(0, "refused"), _incr(3)]
    assert outcomes.counters(history, {"count:0": 3}, frozenset()) == outcomes.Twice(0, 0)


# -- reads ---------------------------------------------------------------------------------------


def test_reads_that_are_fine() -> None:
    history = [
        *(_get("a", MISSING), _set("a", 0), _get("a", 0), _set("a", 1, error="UNCERTAIN")),
        *(_get("a", 0), _get("a", 1), _set("a", 2), _get("a", 2), _get("b", MISSING)),
        _get("a", MISSING, error="closed"),
    ]
    assert outcomes.reads(history) == outcomes.Reads(0, 0, 0)


@pytest.mark.parametrize(
    "history",
    [
        [_set("a", 0), _get("a", MISSING)],
        [_set("a", 0), _set("a", 1), _get("a", 0)],
        [_set("a", 0), _set("a", 1), _get("a", 0), _get("a", 0)],
    ],
    ids=["gone", "older than acknowledged", "once for each step back"],
)
def test_a_stale_read(history: list[Record]) -> None:
    assert outcomes.reads(history) == outcomes.Reads(1, 0, 0)


def test_a_value_that_was_read_and_is_gone() -> None:
    history = [_set("a", 0), _set("a", 1, error="UNCERTAIN"), _get("a", 1), _get("a", 0)]
    assert outcomes.reads(history) == outcomes.Reads(0, 1, 0)
    assert outcomes.reads([*history, _get("a", 0), _get("a", 1)]) == outcomes.Reads(0, 1, 0)
    assert outcomes.reads([*history, _get("a", MISSING)]) == outcomes.Reads(1, 1, 0)


def test_a_wrong_read() -> None:
    history = [_set("a", 0), _get("a", 7), _get("a", GARBLED), _get("a", 0), _get("b", 0)]
    assert outcomes.reads(history) == outcomes.Reads(0, 0, 3)


def test_a_value_names_its_key() -> None:
    assert decode("a:1", encode("a:1", 12)) == 12
    assert decode("a:1", encode("a:2", 12)) == GARBLED
    assert decode("a", "nonsense") == GARBLED
    assert decode("a", None) == MISSING


# -- pauses and errors ---------------------------------------------------------------------------


def test_pauses() -> None:
    history = [_ok(0, 0.5), _ok(0, 1.0), _ok(0, 3.0, took=1.9), _ok(1, 1.5), _ok(1, 2.0)]
    found = outcomes.pauses(history, 0.0, 3.5)
    assert found.client == pytest.approx(2.0)
    assert found.everybody == pytest.approx(1.0)
    assert found.read == pytest.approx(1.9)
    assert found.write == 0


def test_a_pause_counts_from_the_fault_and_to_the_end() -> None:
    history = [_ok(0, 1.0), _ok(0, 2.0), _set("a", 0, at=2.5, error="closed")]
    assert outcomes.pauses(history, 1.5, 5.0).client == pytest.approx(3.0)
    assert outcomes.pauses(history, 1.5, 2.0).client == pytest.approx(0.5)


def test_a_client_that_only_fails_pauses_all_the_time() -> None:
    history = [_ok(0, 1.0), _ok(0, 2.0), Record(1, "set", "a", 0, 1.0, 1.1, "refused", MISSING)]
    assert outcomes.pauses(history, 0.0, 2.5).client == pytest.approx(2.5)


def test_errors_by_kind() -> None:
    history = [_set("a", 0, error="UNCERTAIN"), _get("a", 0, error="closed"), _set("b", 1)]
    assert outcomes.errors(history) == {"read": {"closed": 1}, "write": {"UNCERTAIN": 1}}


def test_more_uncertain_writes_than_were_in_flight() -> None:
    history = [_set("a", 0, error="UNCERTAIN"), _set("b", 0, error="UNCERTAIN")]
    assert outcomes.uncertain_excess(history, faults=1) == 1
    assert outcomes.uncertain_excess(history, faults=2) == 0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The previous master is now a slave", "READONLY"),
        ("Error 111 connecting to 127.0.0.1:1. Connect call failed", "refused"),
        ("Connection closed by server.", "closed"),
        ("something else", "connection"),
    ],
)
def test_kinds_of_connection_errors(text: str, kind: str) -> None:
    from redis.exceptions import ConnectionError

    assert kind_of(ConnectionError(text)) == kind


def test_kinds_of_answers() -> None:
    from redis.exceptions import ReadOnlyError, ResponseError, TimeoutError

    assert kind_of(ResponseError("UNCERTAIN the connection was lost")) == "UNCERTAIN"
    assert kind_of(ReadOnlyError("You can't write", status_code="READONLY")) == "READONLY"
    assert kind_of(TimeoutError("Timeout reading from socket")) == "timeout"
    assert kind_of(ValueError("what")) == "other"


# -- switches ------------------------------------------------------------------------------------


def _said(time: float, channel: str, payload: str, sentinel: int = 0) -> Said:
    return Said(time, sentinel, channel, payload)


def test_a_switch_is_put_together() -> None:
    marks = [Mark(10.0, "kill", True), Mark(13.0, "start", False)]
    said = [
        _said(12.4, "+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 2", 1),
        _said(12.3, "+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 2", 2),
        _said(11.0, "+switch-master", "other 127.0.0.1 1 127.0.0.1 9"),
        _said(9.0, "+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 3"),
    ]
    one, two = ("127.0.0.1", 1), ("127.0.0.1", 2)
    roles = [Role(1.0, one, "master"), Role(11.4, two, "master"), Role(15.0, one, "master")]
    found = announcements(said)
    assert [a.time for a in found] == [9.0, 12.3]
    assert switches(marks, found, roles) == [Switch(10.0, 12.3, 11.4, two)]


def test_each_fault_has_its_own_switch_or_none() -> None:
    marks = [Mark(10.0, "kill", True), Mark(20.0, "kill", True), Mark(30.0, "kill", True)]
    found = switches(marks, [Announced(t, ("h", 2)) for t in (12.0, 31.0)], [])
    assert [s.announced for s in found] == [12.0, None, 31.0]


def test_marks_of_several_sentinels_are_shown_once() -> None:
    said = [_said(t, "+sdown", "master mymaster h 1") for t in (1.0, 1.2, 3.9, 20.0)]
    said.append(_said(1.0, "+ping", "what"))
    assert [s.time for s in shown(said)] == [1.0, 20.0]


def test_the_first_write_served_by_the_new_master() -> None:
    by_the_old_one = _set("gone", 0, at=2.0)
    history = [_set("a", 0, at=1.0), by_the_old_one, _set("b", 0, at=3.0), _set("c", 0, at=4.0)]
    final = {"a": 0, "b": 0, "c": 0}
    assert outcomes.first_served(history, final, since=1.5) == pytest.approx(3.001)
    assert outcomes.first_served(history, final, since=5.0) is None


def test_keys_written_again_do_not_tell_who_served_them() -> None:
    history = [_set("a", 0, at=2.0), _set("a", 1, at=9.0), _set("b", 0, at=3.0)]
    assert outcomes.first_served(history, {"a": 1, "b": 0}, since=1.0) == pytest.approx(3.001)


def _recording(*, lost: bool = False) -> Recording:
    records = [_set(str(n), n, at=n / 10) for n in range(100)]
    final = {r.key: r.number for r in records if not (lost and 5.0 <= r.sent < 6.0)}
    announced, roles = [Announced(4.0, ("h", 2))], [Role(3.5, ("h", 2), "master")]
    return Recording(records, final, [Mark(3.0, "plan", True)], announced, roles, retries=False)


def test_figures_of_a_run_without_faults() -> None:
    figures = measure(_recording())
    assert (figures.lost_all, figures.lost_when_known, figures.twice) == (0, 0, 0)
    assert figures.switches == 1
    assert figures.fault_to_announced == [1.0]
    assert figures.promotion_to_served == [pytest.approx(0.001)]
    assert figures.pause_client == pytest.approx(0.1)
    assert figures.rate == pytest.approx(10.0)


def test_a_fault_without_a_switch() -> None:
    figures = measure(dataclasses.replace(_recording(), announced=[]))
    assert figures.switches == 0
    assert figures.fault_to_announced == figures.fault_to_served == [None]


def test_writes_to_a_stale_master_are_told_from_those_it_took_before() -> None:
    assert measure(_recording(lost=True)).lost_when_known == 10
    before = dataclasses.replace(_recording(lost=True), announced=[Announced(6.5, ("h", 2))])
    figures = measure(before)
    assert (figures.lost, figures.lost_when_known) == (10, 0)


def test_lost_writes_are_told_by_whether_the_old_master_can_have_taken_them() -> None:
    assert measure(_recording(lost=True)).lost_since_fault == 10
    late = dataclasses.replace(_recording(lost=True), marks=[Mark(5.45, "kill", True)])
    assert measure(late).lost_since_fault == 5


def test_connections_made_again() -> None:
    def made(client: int, *errors: str) -> list[Connect]:
        return [Connect(client, 1.0, error) for error in errors]

    run = dataclasses.replace(_recording(), connects=[*made(0, ""), *made(1, "", "", "refused")])
    found = measure(run)
    assert (found.reconnects, found.reconnects_excess, found.refused_connects) == (1, 0, 1)
    twice = dataclasses.replace(run, connects=[*run.connects, *made(1, "")])
    assert measure(twice).reconnects_excess == 1


def test_the_load_is_told_what_to_do_in_json() -> None:
    crowd = Crowd("raw", writers=1, visitors=2, retries=None)
    spec = Spec(1, "out", crowd, first=3, sentinels=(4, 5), password="p")
    assert Spec.of(json.dumps(spec.as_dict())) == spec
    assert Crowd("ioredis").tries_again
    assert not spec.with_retries(0).crowd.retries


def test_a_client_without_a_library_connects_again_and_asks_once_more() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read(100)
        if len(connects) > 1:
            writer.write(b"$3\r\n" + request[-5:-2] + b"\r\n")
            await reader.read(100)
        writer.close()

    async def ask() -> list[object]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            client = Raw(Spec(server.sockets[0].getsockname()[1], "out"), 7, connects)
            found = [await client.get("abc")]
            server.close()
            for _ in range(2):
                try:
                    found.append(await client.get("abc"))
                except OSError as error:
                    found.append(kind_of(error))
            return found

    connects: list[Connect] = []
    assert asyncio.run(ask()) == ["abc", "refused", "refused"]
    assert [made.error for made in connects] == ["", "", *["refused"] * 3]


def test_the_timeline_keeps_the_slowest_of_each_piece_and_all_errors() -> None:
    history = [
        *(_ok(0, 2.001), _ok(0, 2.005, took=0.5), _ok(0, 2.02)),
        _set("a", 0, at=2.1, error="closed"),
    ]
    found = timeline(history, start=2.0)
    assert found["slowest"] == [[0.0, 0.5], [0.02, 0.001]]
    assert found["errors"] == [[0.101, 0.001, "closed"]]


# -- targets -------------------------------------------------------------------------------------


def _result(number: str, *figures: Figures, lane: str = "sidecar", problem: str = "") -> LaneResult:
    runs = [Run(f) for f in figures] + ([Run(problem=problem)] if problem else [])
    return LaneResult(choose([number])[0], lane, runs)


def _state(result: LaneResult, target: str, options: Options | None = None) -> str:
    found = targets.judge([result], options or Options())
    return next(v.state for v in found if v.target == target)


GOOD = Figures(
    errors={"read": {}, "write": {}}, fault_to_served=[0.1], announced_to_served=[0.01], switches=1
)


def test_a_good_run_misses_nothing() -> None:
    for drill in DRILLS:
        good = dataclasses.replace(GOOD, switches=0 if drill.number in ("5", "9") else 1)
        states = {v.state for v in targets.judge([_result(drill.number, good)], Options())}
        assert states <= {"met", "not judged"}, drill.number
        assert "met" in states


@pytest.mark.parametrize(
    ("drill", "target", "bad"),
    [
        ("3", "errors", {"errors": {"read": {}, "write": {"UNCERTAIN": 1}}}),
        ("1", "errors of reads", {"errors": {"read": {"closed": 1}, "write": {}}}),
        ("1", "errors of writes but UNCERTAIN", {"errors": {"read": {}, "write": {"ERR": 1}}}),
        ("1", "UNCERTAIN beyond those in flight", {"uncertain_excess": 1}),
        ("9", "errors but lost connections", {"errors": {"read": {"UNAVAILABLE": 1}}}),
        ("4", "acknowledged writes lost", {"lost": 1}),
        ("4", "acknowledged writes lost", {"lost_increments": 1}),
        ("6b", "written to a stale master", {"lost_when_known": 1}),
        ("10b", "lost, sent after the fault", {"lost": 1, "lost_since_fault": 1}),
        ("10c", "stale reads beyond lost writes", {"lost": 1, "stale": 2}),
        ("10a", "written to a stale master", {"lost_when_known": 1}),
        ("10d", "announcement to first served write", {"announced_to_served": [0.051]}),
        ("11a", "errors", {"errors": {"read": {"WRONGPASS": 1}, "write": {}}}),
        ("12", "reconnects beyond one each", {"reconnects_excess": 1}),
        ("12", "refused connects", {"refused_connects": 1}),
        ("13", "longest pause", {"pause_client": 0.21}),
        ("2", "executed twice", {"twice": 1}),
        ("2", "refused yet applied", {"refused_yet_applied": 1}),
        ("2", "wrong reads", {"wrong": 1}),
        ("7", "stale reads", {"stale": 1}),
        ("5", "failovers", {"switches": 1}),
        ("3", "longest pause", {"pause_client": 1.51}),
        ("4", "longest pause", {"pause_client": 0.21}),
        ("1", "announcement to first served write", {"announced_to_served": [0.051]}),
        ("1", "announcement to first served write", {"announced_to_served": [0.01, None]}),
        ("1", "whole failover", {"fault_to_served": [2.51]}),
    ],
)
def test_every_target_can_be_missed(drill: str, target: str, bad: dict[str, object]) -> None:
    worse = dataclasses.replace(GOOD, **bad)  # type: ignore[arg-type]
    assert _state(_result(drill, worse), target) == "MISSED"
    assert _state(_result(drill, GOOD, worse), target) == "MISSED"


def test_targets_follow_the_options() -> None:
    slow = dataclasses.replace(GOOD, pause_client=0.6, promotion_to_served=[0.06], lost=1)
    promotion = Options(switch_on="promotion")
    assert _state(_result("3", slow), "longest pause") == "met"
    assert _state(_result("3", slow), "longest pause", promotion) == "MISSED"
    assert _state(_result("4", slow), "longest pause", Options(server="redis")) == "met"
    served = "promotion to first served write"
    assert _state(_result("3", slow), served) == "not judged"
    assert _state(_result("3", slow), served, promotion) == "MISSED"
    assert _state(_result("1", slow), "acknowledged writes lost") == "not judged"
    acks = Options(min_replicas_ack=1)
    assert _state(_result("1", slow), "acknowledged writes lost", acks) == "MISSED"
    whole = dataclasses.replace(GOOD, fault_to_served=[4.9])
    assert _state(_result("1", whole), "whole failover", Options(down_after=3000)) == "met"


def test_a_failed_run_is_not_judged_and_the_direct_lane_never() -> None:
    result = _result("3", GOOD, problem="it broke")
    assert {v.state for v in targets.judge([result], Options())} == {"not judged"}
    assert targets.judge([_result("3", GOOD, lane="direct")], Options()) == []


def test_a_percentile_needs_enough_values() -> None:
    values: list[float | None] = [1.0] * 18
    assert targets.measured([*values, 9.0], percentile=True) == 9.0
    assert targets.measured([*values, *values, *values, *values, *values, *values, 9.0], True) == 1
    assert targets.measured([*values, None], percentile=False) == targets.NEVER


def test_broken_promises_are_told_from_long_times() -> None:
    lost = dataclasses.replace(GOOD, lost=1, pause_client=9.0)
    found = [v for v in targets.judge([_result("3", lost)], Options()) if v.state == "MISSED"]
    assert {v.target: v.broken for v in found} == {
        "acknowledged writes lost": True,
        "longest pause": False,
    }


def test_drills_are_chosen_by_number_or_pattern() -> None:
    assert [d.number for d in choose(["6"])] == ["6a", "6b", "6c"]
    assert [d.number for d in choose(["3", "6b"])] == ["3", "6b"]
    assert [d.number for d in choose(["10*", "1"])] == ["1", "10a", "10b", "10c", "10d", "10e"]
    assert choose(["10"]) == choose(["10*"])
    assert choose([]) == list(DRILLS)
    with pytest.raises(Unavailable, match="no drill 77"):
        choose(["77"])
