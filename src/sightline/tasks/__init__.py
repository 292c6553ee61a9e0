"""What a person asks for: image in, answer and its attention out.  One file a task; nothing is imported
here."""
