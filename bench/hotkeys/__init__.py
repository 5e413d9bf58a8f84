"""Hot-key detection by itself: `python -m bench.hotkeys`."""
