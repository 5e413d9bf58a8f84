"""What must hold of a near cache's own records: for tests only."""
