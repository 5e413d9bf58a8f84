"""Links: pending queues, splitting of replies, and what becomes of requests when one is lost."""
