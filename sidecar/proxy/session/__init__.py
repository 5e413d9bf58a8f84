"""Commands about the session itself, which the sidecar serves."""
