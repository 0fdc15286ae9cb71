"""What a service was asked, what it answered, what people said of it, and what befell it."""
