"""Configurations, run folders, and the steps that fill them."""
