"""Checks for label leakage, shortcuts and bias."""
