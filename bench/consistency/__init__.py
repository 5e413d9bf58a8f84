"""Does the near cache keep its contract under load and faults? `python -m bench.consistency`."""
