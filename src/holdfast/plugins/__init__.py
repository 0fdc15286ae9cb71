"""What stands on the whole and what nothing in it imports."""
