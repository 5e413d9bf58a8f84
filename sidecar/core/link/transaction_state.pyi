"""What is open on a connection, as its replies tell."""
