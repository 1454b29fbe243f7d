"""Model directories in the layout of Hugging Face: what each of their files says."""
