"""Words that name a group of people, by what they tell apart, and texts with one in another's
place."""
