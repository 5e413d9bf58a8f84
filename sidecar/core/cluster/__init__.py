"""Clusters: which shard a request goes to, and replies of several shards in one order."""
