"""Failover drills: a real Sentinel cluster under load, something breaks, the clients are asked."""
