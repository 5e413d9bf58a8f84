"""Growable byte buffers for the data path; nothing for Python."""
