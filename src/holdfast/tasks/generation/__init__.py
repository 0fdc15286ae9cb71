"""What tasks that write text share."""
