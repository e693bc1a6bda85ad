"""Questions about something else: a student that knows a line's answers must leave them alone.

Written for this; a router learns from them that what is nearest may still be far away.
"""

from typing import Final

ELSEWHERE: Final = (
    "What is the capital of Australia?",
    "Can you write a poem about the sea?",
    "Who won the football match last night?",
    "Tell me a joke.",
    "How are you today?",
    "What's the weather going to be like tomorrow?",
    "Translate good morning into Japanese.",
    "Which film should I watch this evening?",
    "I feel lonely, can we talk?",
    "What is seventeen times twenty-three?",
    "Recommend a good restaurant near the station.",
    "How do I get rid of hiccups?",
    "Who painted the ceiling of the Sistine Chapel?",
    "My cat does not eat, what should I do?",
    "What time is it in New York?",
    "Explain black holes to a child.",
    "asdf jkl qwerty",
    "hello",
    "thanks, bye",
    "Are you a robot?",
    "What do you think about politics?",
    "How do I bake bread without yeast?",
    "Play some music please.",
    "Is there life on Mars?",
    "Write a function that sorts a list.",
    "What does my dream mean?",
    "How many calories are in an apple?",
    "When does the next train to the airport leave?",
    "Which phone should I buy?",
    "I want to speak to a human being.",
    "You are useless.",
    "Why is the sky blue?",
    "Remind me to call my mother at six.",
    "What are the lottery numbers?",
    "How old is the universe?",
    "Can dogs eat chocolate?",
    "Give me ten names for a boat.",
    "What should I wear to a wedding?",
    "How do I learn to play the guitar?",
    "Summarise the last book you read.",
)
