"""The model as data: op records, the builder that writes them, and the interpreters that read
them."""
