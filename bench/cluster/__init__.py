"""The sidecar, Envoy and cluster clients in front of one cluster, measured."""
