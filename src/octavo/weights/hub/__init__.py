"""Models on the Hugging Face hub: `hf:owner/name`, fetched through huggingface_hub."""
