"""Connections to the server: how they are made, who has one, and what happens when one is lost."""
