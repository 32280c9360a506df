"""Data detection with known or estimated channels."""
