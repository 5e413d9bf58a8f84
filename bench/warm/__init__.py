"""What a warm start is worth: `python -m bench.warm`."""
