"""Priors of channels and symbols: each gives E[x0|x] and Var[x0|x]."""
