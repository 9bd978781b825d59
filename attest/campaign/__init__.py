"""An attest's campaign: what the service is worth, whether it is consistent, what thieves get, what others feel."""
