"""Anomaly detection: one class of normal examples, everything else scored."""

from subspace_jax.anomaly import gods, kernel, pca_residual

__all__ = ["gods", "kernel", "pca_residual"]
