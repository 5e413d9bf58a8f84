"""What is done with a request, as a table."""
