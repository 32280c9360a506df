"""Whole receivers, built of activity detection, channel estimation and data detection."""
