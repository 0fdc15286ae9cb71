"""Foreign worlds, one adapter per library; the only room that knows them."""
