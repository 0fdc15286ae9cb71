"""Updates outside a fine-tuning."""
