import json
import sys

from langchain_openai import ChatOpenAI

url, model = sys.argv[1:]
chat = ChatOpenAI(base_url=url, api_key="unused", model=model, temperature=0, max_tokens=16)
question = "What is 2 + 3?"
plain = chat.invoke(question)
streamed = "".join(str(chunk.content) for chunk in chat.stream(question))
print(json.dumps({"plain": plain.content, "streamed": streamed, "tokens": plain.usage_metadata["output_tokens"]}))
