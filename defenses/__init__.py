"""What happens between a request's pixels and the client's answer: pure numpy, packed into every archive."""
