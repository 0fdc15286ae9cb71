"""What a student keeps of its teacher."""
