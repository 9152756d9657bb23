"""What an erasure is published as: its weights in the formats that others read, its card, its repository."""
