"""A model made ready to learn, and what is kept of it."""
