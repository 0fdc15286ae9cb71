"""Run folders and the store of a service, as pages in a browser."""
