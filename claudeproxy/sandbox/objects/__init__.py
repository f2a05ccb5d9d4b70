"""The part of the sandbox that keeps what belongs to one account."""
