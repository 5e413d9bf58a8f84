"""A client of a cluster, and its turns. Nothing of it is seen from Python."""
