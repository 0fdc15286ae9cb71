"""The command line: one file per command; what a run says as it goes on is ``terminal/``'s."""
