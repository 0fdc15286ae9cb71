"""The training part → more of it, or other forms of it; it accepts nothing else."""
