"""Networks and their parts: encoders, decoders, heads."""
