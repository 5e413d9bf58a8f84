"""Wrong logins slow down, and nobody else for long."""

from __future__ import annotations

from sidecar.policy.login_attempts import (
    FORGET,
    OF_ADDRESS,
    OF_USER,
    LoginAttempts,
)


def attempt(
    attempts: LoginAttempts, now: float, *, accepted: bool = False, user: bytes = b"a"
) -> float | None:
    """Make one attempt: when it was judged, or None if it was refused at once."""
    wait = attempts.turn("host", user, now)
    if wait is None:
        return None
    if wait:
        attempts.begin("host", user, now + wait)
    attempts.judged("host", user, accepted, now + wait)
    return now + wait


def test_a_few_mistakes_cost_nothing() -> None:
    attempts = LoginAttempts()
    assert [attempt(attempts, 1.0) for _ in range(OF_USER.free)] == [1.0] * OF_USER.free


def test_pauses_double_up_to_a_bound() -> None:
    attempts, now, pauses = LoginAttempts(), 0.0, []
    for _ in range(OF_USER.free + 8):
        judged = attempt(attempts, now)
        assert judged is not None
        pauses.append(round(judged - now, 6))
        now = judged
    free = OF_USER.free
    assert pauses[: free + 1] == [0.0] * free + [OF_USER.first]
    assert pauses[free + 1] == 2 * OF_USER.first
    assert pauses[-1] == OF_USER.longest


def test_guesses_made_at_a_time_are_judged_one_after_the_other() -> None:
    attempts = LoginAttempts()
    for _ in range(OF_USER.free):
        attempt(attempts, 0.0)
    turns = [attempts.turn("host", b"a", 0.0) for _ in range(OF_USER.waiting + 2)]
    waits = [wait for wait in turns if wait is not None]
    assert waits == sorted(set(waits))
    assert len(waits) == OF_USER.waiting
    assert turns[-1] is None  # too many wait


def test_the_right_password_waits_for_its_turn_as_well_and_ends_the_pauses() -> None:
    attempts = LoginAttempts()
    for _ in range(OF_USER.free):
        attempt(attempts, 0.0)
    assert attempt(attempts, 0.0, accepted=True) == OF_USER.first
    assert attempt(attempts, 1.0) == 1.0


def test_another_user_and_another_address_do_not_wait() -> None:
    attempts = LoginAttempts()
    for _ in range(OF_USER.free):
        attempt(attempts, 0.0)
    assert attempts.turn("host", b"b", 0.0) == 0.0
    assert attempts.turn("other", b"a", 0.0) == 0.0


def test_who_tries_many_names_is_slowed_down_by_address() -> None:
    attempts = LoginAttempts()
    for number in range(OF_ADDRESS.free):
        assert attempt(attempts, 0.0, user=b"u%d" % number) == 0.0
    assert attempts.turn("host", b"new", 0.0) == OF_ADDRESS.first


def test_many_good_logins_at_a_time_do_not_wait() -> None:
    attempts = LoginAttempts()
    assert {attempts.turn("host", b"a", 0.0) for _ in range(5000)} == {0.0}


def test_failures_are_forgotten() -> None:
    attempts = LoginAttempts()
    for _ in range(OF_USER.free + 3):
        attempt(attempts, 0.0)
    later = FORGET + OF_USER.longest + 1
    assert attempts.turn("host", b"a", later) == 0.0


def test_the_tables_are_bounded_and_keep_who_waits() -> None:
    attempts = LoginAttempts(most=4)
    for _ in range(OF_USER.free):
        attempt(attempts, 0.0)
    assert attempts.turn("host", b"a", 0.0)  # it waits
    for number in range(100):
        attempts.turn(f"h{number}", b"b", 0.0)
    assert attempts.known <= 8
    assert attempts.turn("host", b"a", 0.0)  # still remembered


def test_an_accepted_login_leaves_nothing_behind() -> None:
    attempts = LoginAttempts()
    attempt(attempts, 0.0, accepted=True)
    assert attempts.known == 0
