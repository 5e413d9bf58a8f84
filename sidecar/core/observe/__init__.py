"""What is noted of single commands: audit notes and trace records."""
