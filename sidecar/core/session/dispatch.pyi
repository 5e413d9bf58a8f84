"""Deciding on one request."""
