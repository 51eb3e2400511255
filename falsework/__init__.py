"""Falsework: a self-hosted function-calling server for open models."""

__version__ = "0.1.0"
__all__ = ["__version__"]
