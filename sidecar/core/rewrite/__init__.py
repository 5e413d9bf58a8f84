"""The names that clients use, and those of the server: key prefixes and renamed commands."""
