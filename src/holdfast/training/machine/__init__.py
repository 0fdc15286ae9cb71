"""What the machine decides and bounds."""
