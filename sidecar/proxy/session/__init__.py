"""Sessions: the handler of the plane, and the commands that the sidecar serves itself."""
