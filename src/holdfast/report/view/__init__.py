"""The data of each section of the report: frozen values, computed from ``RunFiles``."""
