"""What clients may do, and how much of it: command policies and limits, judged for each request."""
