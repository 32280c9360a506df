"""Nature: pilots, modulation, framing, channels, front end, and simulate."""
