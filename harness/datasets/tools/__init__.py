"""Commands on datasets: checking, importing, writing weak labels."""
