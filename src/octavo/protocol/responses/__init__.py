"""OpenAI's Responses API: its bodies are read to chats, and chats' answers are written as its
items and events.
"""
