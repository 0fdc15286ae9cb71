"""What the service is asked, one file a subject."""
