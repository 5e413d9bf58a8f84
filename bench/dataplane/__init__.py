"""The data plane beside its peers: scenarios, how they are run, targets, report."""
