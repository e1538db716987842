"""Experiments: one paper's claim each, on real data. Run ``python -m experiments.NAME``."""
