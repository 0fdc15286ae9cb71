"""Why a model predicted what it predicted."""
