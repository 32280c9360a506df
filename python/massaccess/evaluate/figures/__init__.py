"""Published figures as experiments: one TOML file a figure, run by the Monte Carlo of `evaluate.montecarlo`."""
