"""The guard in other people's trainers: one adapter a library, one judge for all of them."""
