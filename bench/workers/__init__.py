"""One worker and several, measured."""
