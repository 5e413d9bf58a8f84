"""Hours under mixed load and faults: nothing grows, nothing leaks, and no reply is wrong."""
