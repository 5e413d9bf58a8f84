"""Settings for an upstream that is a cluster."""

from typing import Annotated, Literal

from sidecar.settings.fields import Section, restart, seconds, setting

_MADE = "what the sidecar knows of its cluster is made at the start"


class Cluster(Section, frozen=True):
    """A `redis+cluster://` upstream: how its nodes are reached, and how it looks to clients."""

    map: Annotated[
        tuple[str, ...],
        setting(
            "Addresses that the nodes announce and that cannot be reached from here, with those "
            'that can: "10.0.0.1:6379=127.0.0.1:7001", or "10.0.0.1=node1.example" for all ports '
            "of a host.",
            reload=restart(_MADE),
        ),
    ] = ()
    refresh: Annotated[
        float,
        seconds(
            "The nodes are asked this often which of them has which slots, in addition to whenever "
            "something tells that this has changed.",
            ge=0.1,
            le=3600,
            reload=restart(_MADE),
        ),
    ] = 10.0
    split: Annotated[
        bool,
        setting(
            "MGET, MSET, DEL, UNLINK, EXISTS and TOUCH with keys of several shards are split, and "
            "are atomic for each shard only. false: they get -CROSSSLOT, as a node answers them.",
            reload=restart(_MADE),
        ),
    ] = True
    present: Annotated[
        Literal["standalone", "cluster"],
        setting(
            "What clients are shown. standalone: one server. cluster: a cluster of one node, this "
            "sidecar, which has all slots; for clients that work with clusters only.",
            reload=restart("clients ask once and remember what they were told"),
        ),
    ] = "standalone"
