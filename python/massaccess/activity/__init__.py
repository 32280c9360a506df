"""Activity detection: who is awake."""
