"""TOML files read against types: every value knows its line, and every refusal says where, what and what is allowed."""
