"""What becomes of a request that a cluster's server has not executed. Nothing of it is seen from
Python."""
