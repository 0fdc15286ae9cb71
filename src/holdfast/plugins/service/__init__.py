"""A finished run as a service: answers over HTTP, watched and compared."""
