"""A loopback of a cluster: sessions have a branch at each of several shared links."""

from collections.abc import Sequence

from tests.native.loopback import Loopback

class ClusterLoopback(Loopback):
    def use_shards(self, links: Sequence[int], addresses: Sequence[bytes]) -> None:
        """These shared links lead to the shards, whose servers have these addresses."""
    def put_slots(self, first: int, last: int, shard: int) -> None:
        """These slots are this shard's from now on."""
    def shard_of(self, slot: int) -> int | None:
        """Which shard has a slot, None if nobody."""
    def join(self, session: int) -> None:
        """This session is a cluster's client."""
    def leave(self, session: int) -> None:
        """It is none any more."""
    def early(self, session: int) -> int:
        """Bytes of replies that have come before their turn."""
    def turns(self, session: int) -> list[tuple[int, int]]:
        """[(shard, replies due)] of the session's turns."""
    def redirections(self) -> tuple[int, int]:
        """How many told of another shard, and how many of an unknown one."""
