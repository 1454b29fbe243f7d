"""LangChain (pip install langchain-openai)."""

from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model="smollm2", base_url="http://127.0.0.1:8000/v1", api_key="none needed", max_tokens=24
)
print(model.invoke("Why is the sky blue?").content)
