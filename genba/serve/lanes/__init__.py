"""From a question to its answer: who answers, when, with which others, and on which thread."""
