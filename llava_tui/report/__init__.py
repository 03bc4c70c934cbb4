"""What leaves a session as text: tables for a terminal, documents for other programs."""
