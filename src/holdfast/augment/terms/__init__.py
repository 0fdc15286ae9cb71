"""Terms for groups of people, by axis (gender, origin, region), and texts with swapped terms."""
