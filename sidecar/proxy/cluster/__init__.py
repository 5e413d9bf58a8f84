"""The shards of a cluster: which there are, how clients are placed on them, what concerns
several."""
