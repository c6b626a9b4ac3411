"""OpenAI's API over anything that generates tokens; the gateway and every replica serve it. Without torch."""
