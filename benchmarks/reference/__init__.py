"""Plain restatements, each written anew from a published algorithm's description for comparison only."""
