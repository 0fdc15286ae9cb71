"""What the fits of a run share: rows read, cleaned, split and encoded once; the loaded model."""
