"""Requests that are refused behind others on a link of the client's own."""
