"""The guard in other libraries' trainers: one adapter per library, one set of rules for all."""
