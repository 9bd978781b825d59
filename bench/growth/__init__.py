"""What grows with a service: an answer's time and memory with members, stores with a week's traffic."""
