"""HTTP itself: what is let in, how a body is read, how an error looks."""
