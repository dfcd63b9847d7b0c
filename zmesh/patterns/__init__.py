"""Who should get a message, and what an answer means."""
