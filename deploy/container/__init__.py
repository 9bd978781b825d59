"""What runs in containers and nowhere else."""
