"""Load, and distance: `loadgen.c` asks, `delayline.c` makes a server's answers come later."""
