"""The product: the ex-model's network, what it starts with, how it grows, and how it is used."""
