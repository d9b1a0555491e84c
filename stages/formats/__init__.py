"""Files of questions, answers and conversations: told apart, read, checked, converted, written."""
