"""What all reports share: rounds, verdicts, tables, pictures, facts about the machine."""
