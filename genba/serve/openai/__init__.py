"""The OpenAI API over the lines of language models: on the same port, with the same keys."""
