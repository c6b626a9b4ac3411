"""What the cells of each chapter call: experiments, figures, tables. No answers are in here."""
