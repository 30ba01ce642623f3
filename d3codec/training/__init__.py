"""Students, teachers, the evaluation protocols and what they are compared with."""
