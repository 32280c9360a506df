"""Metrics, Monte Carlo sweeps and figures."""
