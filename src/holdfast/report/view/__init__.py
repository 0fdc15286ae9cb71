"""What the page shows, section by section: plain frozen values, worked out from ``RunFiles``."""
