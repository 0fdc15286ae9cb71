"""Rows read, cleaned, split and encoded once, and the network as it was loaded: what fits share."""
