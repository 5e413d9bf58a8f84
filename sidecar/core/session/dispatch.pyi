"""Reading and routing of a client's requests; nothing for Python."""
