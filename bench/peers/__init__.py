"""Other model servers and this one around the same file: what each of them makes of a machine."""
