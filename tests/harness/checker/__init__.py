"""What clients saw, and what must not be among it.

* `history` and `contract`: many clients of several sidecars and of the server, every operation with
  its beginning and its end. Each read is judged: does it break what the near cache promises?
* `records` and `outcomes`: clients that go on through failovers, every command with its outcome,
  and what the last master holds. The whole is judged: what was lost, executed twice, executed
  though refused, read stale; and how long nobody was served.

All of it is pure: no server, no clock.
"""
