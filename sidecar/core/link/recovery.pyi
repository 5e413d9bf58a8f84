"""What becomes of requests whose link is lost, held up, or given up; for Cython only."""
