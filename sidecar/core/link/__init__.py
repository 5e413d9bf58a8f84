"""Links: queues of requests, splitting of replies, and what a lost link means for them."""
