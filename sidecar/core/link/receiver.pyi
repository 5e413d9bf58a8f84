"""A session as the receiver of replies: for other Cython modules only."""
