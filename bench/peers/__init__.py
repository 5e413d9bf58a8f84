"""The sidecar and its peers: how each is configured and started."""
