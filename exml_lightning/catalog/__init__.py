"""`exml catalog`: finds experts and ex-models in folders, lists them, and writes selections of them."""
