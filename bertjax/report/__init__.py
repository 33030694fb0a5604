"""What is in a text and in a data set, and what looks wrong there.

survey    a text, before anything is made of it
prepared  a data set: numbers and doubts; `page` shows them, `spelled` the first examples

Imports `config`, `console`, `data`, `corpus`.
"""
