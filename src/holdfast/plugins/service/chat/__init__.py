"""Language models over HTTP, as OpenAI's clients ask them: conversations that are answered beside
one another by one thread."""
