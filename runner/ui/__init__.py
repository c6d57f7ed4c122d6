"""What a terminal shows while steps are carried out."""
