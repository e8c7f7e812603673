"""Measuring: bounds with error bars, and their provenance."""
