"""Hot-key detection: a sampled count-min sketch."""
