"""Language models over HTTP with OpenAI's API: one thread answers several conversations in
parallel."""
