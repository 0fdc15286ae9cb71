"""The HTTP layer: access rules, request bodies, and error responses."""
